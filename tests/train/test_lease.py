"""One run folder, one training: who is refused, and what a killed one leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from live2diff.errors import SetupError
from live2diff.runs import checkpoints
from tests.train.runs import FAST, run
from tests.train.shards import make_dataset
from train.lease import Holder, _myself, check_lease, lease
from train.run import train

HOLD = """
import sys
from pathlib import Path
from train.lease import lease
with lease(Path(sys.argv[1]), {"SLURM_JOB_ID": "45"}):
    print("held", flush=True)
    sys.stdin.read()
"""
ELSEWHERE = Holder("node7", "another boot", 123, "9", "", 0, "2026-01-01T00:00:00+00:00")


def leave(run: Path, holder: Holder | None, age: float = 0) -> Path:
    """A lease as another process left it, `age` seconds ago."""
    path = run / "lease.json"
    path.write_text(json.dumps(asdict(holder)) if holder else "{")
    then = time.time() - age
    os.utime(path, (then, then))
    return path


@pytest.fixture
def other(tmp_path):
    """A process that trains in tmp_path/run."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process


def test_a_second_training_is_refused_before_it_touches_anything(other, tmp_path, monkeypatch):
    (tmp_path / "run/checkpoints/.staged-step-000001").mkdir(parents=True)
    before, held = sorted(tmp_path.rglob("*")), (tmp_path / "run/lease.json").read_text()
    monkeypatch.setattr("train.run.newest_whole", lambda run: pytest.fail("it went on"))
    words = rf"run: is trained by process {other.pid} on \S+, SLURM job 45, since 20\S+, last seen \d+ s"
    with pytest.raises(SetupError, match=words):
        train([*FAST, f"data.path={tmp_path}", f"run_dir={tmp_path / 'run'}"])
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "run/lease.json").read_text() == held


def test_what_a_killed_process_held_is_free_at_once(other, tmp_path):
    other.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # dead, and its parent has not asked for it
    with lease(tmp_path / "run"):
        other.wait()
    assert not (tmp_path / "run/lease.json").exists()


def test_a_process_number_that_is_used_again_is_not_the_holder(tmp_path):
    leave(tmp_path, replace(_myself({}), started="1"))
    with lease(tmp_path):
        pass


@pytest.mark.parametrize("holder", [ELSEWHERE, None], ids=["elsewhere", "not readable"])
def test_what_cannot_be_seen_is_given_up_after_three_minutes(tmp_path, holder):
    leave(tmp_path, holder, age=100)
    with pytest.raises(SetupError, match=r"last seen (99|10\d) s ago.*run this command again 180 s after"):
        lease(tmp_path).__enter__()
    leave(tmp_path, holder, age=190)
    with lease(tmp_path):
        pass


@pytest.mark.parametrize(("restarts", "free"), [("1", True), ("0", False), ("", False)])
def test_a_job_that_slurm_started_again_goes_on(tmp_path, restarts, free):
    """Not one that is started twice within the job."""
    leave(tmp_path, replace(ELSEWHERE, job="45"))
    wanted = lease(tmp_path, {"SLURM_JOB_ID": "45", "SLURM_RESTART_COUNT": restarts})
    if free:
        with wanted:
            return
    with pytest.raises(SetupError, match="process 123 on node7, SLURM job 45"):
        wanted.__enter__()


def test_it_is_refreshed_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr("train.lease._REFRESH", 0.01)
    with lease(tmp_path):
        path = leave(tmp_path, Holder(**json.loads((tmp_path / "lease.json").read_text())), age=999)
        end = time.monotonic() + 20
        while time.time() - path.stat().st_mtime > 100:
            assert time.monotonic() < end
            time.sleep(0.01)
        leave(tmp_path, ELSEWHERE, age=999)  # another's is left alone
        time.sleep(0.1)
        assert time.time() - path.stat().st_mtime > 100
    assert path.exists()


def test_a_start_that_is_refused_leaves_no_folder(tmp_path):
    with lease(tmp_path / "outputs/run"):
        assert (tmp_path / "outputs/run/lease.json").exists()
    assert not list(tmp_path.iterdir())


def test_a_process_that_lost_its_run_saves_nothing(tmp_path, monkeypatch):
    """It was suspended, say, and another has gone on with the run."""
    dataset = make_dataset(tmp_path / "data", shards=1, clips_per_shard=2)
    monkeypatch.setattr("train.checkpoints.save_rank_state", lambda path: pytest.fail("it was saved"))
    monkeypatch.setattr("train.stopping.StopOnSignal.on_train_start", lambda *_: leave(folder, ELSEWHERE))
    folder = tmp_path / "run"
    with pytest.raises(SetupError, match="process 123 on node7, since 2026.* has taken over this run"):
        run(dataset, folder, "trainer.updates=1", "trainer.batch=1")
    assert (folder / "lease.json").exists() and not checkpoints(folder)
    with pytest.raises(SetupError):
        check_lease(folder)
