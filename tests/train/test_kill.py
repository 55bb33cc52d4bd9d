"""kill -9 at any moment: the same command then ends in the very bytes of a run that was never killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from live2diff.runs import checkpoints, updates_of
from tests.train.nursery import PER_MICRO_STEP, POINTS, Nursery
from tests.train.runs import FAST
from tests.train.shards import make_dataset

SETTINGS = [
    *FAST, "trainer.updates=6", "trainer.batch=1", "trainer.save_every=2", "trainer.keep=2",
    "trainer.ema=0.9", "trainer.log_samples=true", "trainer.accelerator=cpu", "trainer.devices=auto",
    "validation=default", "validation.every=3", "validation.clips=1", "validation.timesteps=[500]",
    "validation.video_frames=3",
]  # fmt: skip
SHAPES = [(workers, ranks) for ranks in (1, 2) for workers in (0, 2)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=5, clips_per_shard=3, val=True)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


class Run:
    """One run of `ranks` processes; 2 micro-steps an update for one rank, 1 for two."""

    def __init__(self, nursery: Nursery, dataset: Path, folder: Path, workers: int, ranks: int):
        self.nursery, self.folder, self.ranks = nursery, folder, ranks
        folder.mkdir()
        self.arguments = [
            *SETTINGS, f"data.path={dataset}", f"run_dir={folder / 'run'}", f"data.workers={workers}",
            f"trainer.accumulate={2 // ranks}",
        ]  # fmt: skip

    def start(self, point: str | None = None, at: int = 1, victim: int = 0) -> list[int]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        pids = []
        for rank in range(self.ranks):
            torchrun = {
                "TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(self.ranks), "LOCAL_WORLD_SIZE": str(self.ranks), "GROUP_RANK": "0",
                "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
            }  # fmt: skip
            env = torchrun if self.ranks > 1 else {}
            dies = point if rank == victim else None
            log = self.folder / f"{rank}.log"
            pids.append(self.nursery.start(self.arguments, log, dies, at, **env))
        return pids

    def finish(self, pids: list[int] | None = None) -> list[int]:
        return [self.nursery.wait(pid) for pid in (self.start() if pids is None else pids)]

    def words(self) -> str:
        return "\n".join(path.read_text()[-2000:] for path in sorted(self.folder.glob("*.log")))

    def result(self) -> dict[str, Any]:
        """Everything the next update would depend on, and what was seen on the way."""
        last = checkpoints(self.folder / "run")[-1]
        assert last.name == "step-000006", self.words()
        state: dict[str, Any] = {}
        for name in ("weights", "ema"):
            tensors = load_file(last / f"{name}.safetensors")
            state |= {f"{name}.{key}": value for key, value in tensors.items()}
        trainer = torch.load(last / "trainer.pt", weights_only=True)
        state["optimizer"], state["callbacks"] = trainer["optimizer_states"], trainer["callbacks"]
        for rank in range(self.ranks):
            state[f"rank {rank}"] = torch.load(last / f"rank-{rank:04d}.pt", weights_only=True)
            state[f"samples {rank}"] = (self.folder / f"run/samples/rank-{rank:04d}.csv").read_text()
        rows = (self.folder / "run/metrics.csv").read_text().splitlines()
        state["losses"] = [row.split(",")[:6] for row in rows]
        return state


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def check(run: Run, whole: dict[str, Any], keep: int = 2) -> None:
    result = run.result()
    for key, value in whole.items():
        assert same(value, result[key]), key
    left = [path.name for path in (run.folder / "run/checkpoints").iterdir()]
    assert sorted(left) == ["step-000004", "step-000006"][-keep:]


_WHOLE: dict[tuple[int, int], dict[str, Any]] = {}


def uninterrupted(nursery, dataset, tmp_path, workers, ranks) -> dict[str, Any]:
    if (workers, ranks) not in _WHOLE:
        run = Run(nursery, dataset, tmp_path / "whole", workers, ranks)
        assert run.finish() == [0] * ranks, run.words()
        _WHOLE[workers, ranks] = run.result()
    return _WHOLE[workers, ranks]


def kill_and_continue(nursery, dataset, tmp_path, workers, ranks, point) -> None:
    whole = uninterrupted(nursery, dataset, tmp_path, workers, ranks)
    run = Run(nursery, dataset, tmp_path / "killed", workers, ranks)
    # Two ranks accumulate nothing; and with one checkpoint to keep, the second time there is one to remove.
    at = POINTS[point][-1] // (ranks if point in PER_MICRO_STEP else 1)
    keep = 1 if point == "pruning" else 2
    run.arguments.append(f"trainer.keep={keep}")
    codes = run.finish(run.start(point, at))
    assert codes[0] == -signal.SIGKILL, run.words()
    assert all(code != 0 for code in codes)
    left = [updates_of(path) for path in checkpoints(run.folder / "run")]
    assert left and max(left) < 6, "nothing to go on from, or nothing to do"
    if point == "pruning":
        assert left == [2, 4]
    assert run.finish() == [0] * ranks, run.words()
    assert f"continuing {run.folder / 'run'} after update {max(left)}" in run.words()
    check(run, whole, keep)


@pytest.mark.parametrize("point", ["in a step", "staging the weights", "after the rename"])
def test_killed_at_a_named_point(nursery, dataset, tmp_path, point):
    kill_and_continue(nursery, dataset, tmp_path, 0, 1, point)


def test_a_signal_to_one_of_two_ranks_stops_both(nursery, dataset, tmp_path):
    run = Run(nursery, dataset, tmp_path / "stopped", 0, 2)
    run.arguments += ["trainer.updates=500", "validation=off"]
    pids = run.start()
    end, rows = time.monotonic() + 120, run.folder / "run/metrics.csv"
    while not rows.exists() or rows.read_text().count("\n") < 3:
        assert time.monotonic() < end, run.words()
        time.sleep(0.1)
    os.kill(pids[1], signal.SIGTERM)
    assert run.finish(pids) == [143, 143], run.words()
    assert "stopped after update" in run.words()


def test_one_of_two_ranks_is_killed(nursery, dataset, tmp_path):
    """The other must not wait for ever: it ends with one line that says what to do."""
    run = Run(nursery, dataset, tmp_path / "run", 0, 2)
    pids = run.start("in a step", 3, victim=1)
    start = time.monotonic()
    assert nursery.wait(pids[1]) == -signal.SIGKILL
    assert nursery.wait(pids[0], seconds=60) == 5, run.words()
    assert time.monotonic() - start < 60
    last = (run.folder / "0.log").read_text().strip().splitlines()[-1]
    assert last.startswith("error: rank 0 of 2: another process of this run is gone") and "again" in last
    assert run.finish() == [0, 0], run.words()


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "ranks"), SHAPES)
@pytest.mark.parametrize("point", POINTS)
def test_killed_at_every_named_point(nursery, dataset, tmp_path, point, workers, ranks):
    kill_and_continue(nursery, dataset, tmp_path, workers, ranks, point)


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "ranks"), SHAPES)
def test_killed_at_random_moments(nursery, dataset, tmp_path, workers, ranks):
    whole = uninterrupted(nursery, dataset, tmp_path, workers, ranks)
    moments = random.Random(workers * 10 + ranks)
    run = Run(nursery, dataset, tmp_path / "killed", workers, ranks)
    for _ in range(10):
        pids = run.start()
        time.sleep(moments.uniform(0.2, 4))
        for pid in pids:
            os.killpg(pid, signal.SIGKILL)
        run.finish(pids)
    assert run.finish() == [0] * ranks, run.words()
    check(run, whole)
