"""Ctrl-C and TERM: a checkpoint at the next whole update, no traceback, and the run continues."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest
import torch
from safetensors.torch import load_file

from live2diff.errors import SetupError
from live2diff.runs import checkpoints
from tests.train.runs import FAST, run
from tests.train.shards import make_dataset
from train.data import ClipData
from train.module import Diffusion
from train.signals import Signals, held_back


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=2, clips_per_shard=4)


def signal_at(monkeypatch, number: int, micro_step: int) -> None:
    """Send the signal to this process in the middle of a micro-step, counted from 1."""
    original, steps = Diffusion.training_step, []

    def training_step(self, *args):
        steps.append(None)
        if len(steps) == micro_step:
            os.kill(os.getpid(), number)
        return original(self, *args)

    monkeypatch.setattr(Diffusion, "training_step", training_step)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_at_the_next_whole_update(dataset, tmp_path, monkeypatch, capsys, number):
    before = signal.getsignal(number)
    signal_at(monkeypatch, number, 5)
    assert run(dataset, tmp_path / "run", "trainer.updates=9", "trainer.accumulate=4") == 128 + number
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000002"]
    assert "stopped after update 2; run the same command again" in capsys.readouterr().out
    assert signal.getsignal(number) is before


def test_a_signal_before_the_first_step_ends_the_run_no_differently(dataset, tmp_path, monkeypatch, capsys):
    """Lightning's own handler for TERM, installed until the training begins, would end it unsaved."""
    loader = ClipData.train_dataloader
    monkeypatch.setattr(
        ClipData, "train_dataloader", lambda self: os.kill(os.getpid(), signal.SIGTERM) or loader(self)
    )
    assert run(dataset, tmp_path / "run", "trainer.updates=9", "trainer.accumulate=2") == 143
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000001"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB. GPU 0 has a total"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 GiB. Error 12"),
    ],
)
def test_full_memory_is_one_line_that_says_what_helps(dataset, tmp_path, monkeypatch, error):
    def training_step(*_):
        raise error

    monkeypatch.setattr(Diffusion, "training_step", training_step)
    words = r"rank 0 of 1: the memory is full \([Tt]ried to allocate 2 GiB\); lower trainer.batch"
    with pytest.raises(SetupError, match=words):
        run(dataset, tmp_path / "run", "trainer.updates=2")


def training(dataset, folder, *words: str) -> subprocess.Popen[str]:
    """A run in a process group of its own, once it trains; what it says from then on is on its stdout."""
    command = [sys.executable, "-m", "train", *FAST, f"data.path={dataset}", f"run_dir={folder}"]
    process = subprocess.Popen(
        [*command, "trainer.updates=4000", "trainer.save_every=1000", "trainer.batch=1", *words],
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    assert process.stdout is not None
    told = []
    for line in process.stdout:
        told.append(line)
        if line.startswith("update 2/"):
            break
    assert process.poll() is None, "".join(told)
    return process


@pytest.fixture
def started_here(dataset, tmp_path):
    """Two processes on CPUs, the second started by the first."""
    process = training(dataset, tmp_path / "run", "trainer.devices=2", "trainer.accelerator=cpu")
    assert len(psutil.Process(process.pid).children()) == 1
    yield process
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def gone(group: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while running(group) and time.monotonic() < end:
        time.sleep(0.1)
    return not running(group)


@pytest.mark.slow
def test_processes_that_the_first_one_started_stop_with_it(started_here, tmp_path):
    started_here.send_signal(signal.SIGTERM)  # to the first alone, as `kill` does
    said, _ = started_here.communicate(timeout=120)
    assert started_here.returncode == 143, said
    assert "stopped after update" in said and "Traceback" not in said
    assert len(checkpoints(tmp_path / "run")) == 1 and gone(started_here.pid, 10)


@pytest.mark.slow
def test_processes_that_the_first_one_started_do_not_outlive_it(started_here):
    """They would hold their GPUs, and wait in a collective for half an hour."""
    (child,) = psutil.Process(started_here.pid).children()
    child.suspend()  # as one that waits in NCCL: it does not see for itself that the other is gone
    os.kill(started_here.pid, signal.SIGKILL)
    assert gone(started_here.pid, 10), running(started_here.pid)


def test_what_is_not_kept_is_not_promised(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("train.processes.requeue", lambda _: pytest.fail("it would begin at the start"))
    signal_at(monkeypatch, signal.SIGTERM, 1)
    assert run(dataset, tmp_path / "run", "trainer.updates=9", "trainer.save_every=null") == 143
    said = capsys.readouterr().out
    assert "stopped after update 1; trainer.save_every=null, so it is lost" in said


def test_a_stopped_run_continues_exactly(dataset, tmp_path, monkeypatch):
    """Stopped in the middle of an update, with a loader worker; kills with none and two are in test_kill."""
    settings = ["trainer.updates=3", "trainer.batch=1", "trainer.accumulate=2", "data.workers=1"]
    run(dataset, tmp_path / "whole", *settings)
    signal_at(monkeypatch, signal.SIGTERM, 1)
    assert run(dataset, tmp_path / "parts", *settings) == 143
    assert checkpoints(tmp_path / "parts")[-1].name == "step-000001"
    assert run(dataset, tmp_path / "parts", *settings) == 0
    whole, parts = (
        load_file(checkpoints(tmp_path / n)[-1] / "weights.safetensors") for n in ("whole", "parts")
    )
    assert whole.keys() == parts.keys()
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


def running(group: int) -> list[str]:
    """Processes of the group; the dead that nobody has asked for do not count."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_processes_saves(dataset, tmp_path, number):
    """A terminal and a scheduler signal the loader workers too; the update in work still needs them."""
    process = training(dataset, tmp_path / "run", "data.workers=2", "trainer.accumulate=4")
    os.killpg(process.pid, number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert "run the same command again" in said
    assert len(checkpoints(tmp_path / "run")) == 1
    assert gone(process.pid, 30), running(process.pid)  # no worker is left


def test_what_is_held_back_comes_afterwards_and_never_to_helpers():
    with Signals() as signals:
        with held_back():
            os.kill(os.getpid(), signal.SIGTERM)
            helper = subprocess.Popen(["sleep", "60"])
        assert signals.received == [signal.SIGTERM]
    helper.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        helper.wait(timeout=0.3)
    helper.kill()
    assert helper.wait() == -signal.SIGKILL
