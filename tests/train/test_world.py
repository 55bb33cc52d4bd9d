"""Many processes are one: the same updates whatever their number, also when it changes on the way."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from live2diff.errors import UsageError
from live2diff.runs import checkpoints
from tests.train.nursery import Nursery
from tests.train.runs import FAST, run
from tests.train.shards import make_dataset
from tests.train.test_kill import Run


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=5, clips_per_shard=3, val=True)


@pytest.fixture(scope="module")
def nursery():
    with Nursery() as nursery:
        yield nursery


def seen(folder) -> dict[int, list[str]]:
    """Clips by update, in the global order of no particular rank."""
    updates: dict[int, list[str]] = {}
    for path in sorted((folder / "run/samples").glob("rank-*.csv")):
        for row in csv.DictReader(path.read_text().splitlines()):
            updates.setdefault(int(row["update"]), []).append(row["key"])
    return {update: sorted(keys) for update, keys in updates.items()}


def rows(folder) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "run/metrics.csv").read_text().splitlines()))


def test_two_ranks_equal_one_with_twice_the_batch(nursery, dataset, tmp_path):
    one = Run(nursery, dataset, tmp_path / "one", workers=0, ranks=1)
    one.arguments += ["trainer.batch=2", "trainer.accumulate=1", "validation.clips=3"]
    two = Run(nursery, dataset, tmp_path / "two", workers=0, ranks=2)
    two.arguments += ["validation.clips=3"]
    assert one.finish() == [0], one.words()
    assert two.finish() == [0, 0], two.words()
    assert seen(one.folder) == seen(two.folder)
    # Before any update the weights are the same, so the validation is too, to the last bit.
    begins = [(r.folder / "run/metrics.csv").read_text().splitlines()[1].split(",") for r in (one, two)]
    assert begins[0] == begins[1] and float(begins[0][4]) > 0
    losses = [[float(row["loss"]) for row in rows(r.folder) if row["loss"]] for r in (one, two)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    last = [checkpoints(r.folder / "run")[-1] for r in (one, two)]
    # The gradients themselves: Adam's steps hide their size, and where it is near zero show rounding.
    moments = [
        torch.load(path / "trainer.pt", weights_only=True)["optimizer_states"][0]["state"] for path in last
    ]
    for number, state in moments[0].items():
        difference = state["exp_avg"] - moments[1][number]["exp_avg"]
        assert difference.norm() <= 0.02 * state["exp_avg"].norm(), number
    weights = [load_file(path / "weights.safetensors") for path in last]
    for name, tensor in weights[0].items():
        assert torch.allclose(tensor, weights[1][name], atol=2e-3), name


def test_two_ranks_then_one_then_two(nursery, dataset, tmp_path):
    """The order of samples goes on across both changes, and the losses are those of two ranks throughout."""
    whole = Run(nursery, dataset, tmp_path / "whole", workers=0, ranks=2)
    assert whole.finish() == [0, 0], whole.words()
    folder, runs = tmp_path / "mixed", {}
    for ranks in (1, 2):
        runs[ranks] = Run(nursery, dataset, tmp_path / f"as{ranks}", workers=0, ranks=ranks)
        runs[ranks].arguments = [
            f"run_dir={folder / 'run'}" if word.startswith("run_dir=") else word
            for word in runs[ranks].arguments
        ]
    for ranks, updates in ((2, 2), (1, 4), (2, 6)):
        part = runs[ranks]
        plain = list(part.arguments)
        part.arguments = [*plain, f"trainer.updates={updates}"]
        assert part.finish() == [0] * ranks, part.words()
        part.arguments = plain
    assert seen(folder) == seen(whole.folder)
    losses = [[float(row["loss"]) for row in rows(f) if row["loss"]] for f in (folder, whole.folder)]
    assert len(losses[0]) == 6
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_another_effective_batch_is_refused(dataset, tmp_path):
    run(dataset, tmp_path / "run", "trainer.updates=1", "trainer.batch=1", "trainer.accumulate=4")
    more = ["trainer.updates=2", "trainer.accumulate=4"]
    with pytest.raises(UsageError, match=r"4 clips per update, now 8 .*set trainer.accumulate=2"):
        run(dataset, tmp_path / "run", *more, "trainer.batch=2")
    with pytest.raises(UsageError, match="choose a trainer.batch and a number of processes that divide 4"):
        run(dataset, tmp_path / "run", *more, "trainer.batch=3")
    assert run(dataset, tmp_path / "run", "trainer.updates=2", "trainer.batch=2", "trainer.accumulate=2") == 0


@pytest.mark.slow
def test_torchrun_trains_and_resumes(dataset, tmp_path):
    """Two processes that torchrun started, on one machine: as the README has it."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    settings = [*FAST, f"data.path={dataset}", f"run_dir={tmp_path / 'run'}", "trainer.accelerator=cpu"]
    settings += [
        "trainer.devices=auto",
        "trainer.batch=1",
        "trainer.effective_batch=2",
        "trainer.log_samples=true",
    ]
    for updates in (2, 3):
        done = subprocess.run(
            [*launcher, "-m", "train", *settings, f"trainer.updates={updates}"],
            capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "2 processes, 2 on each of 1 machines, meet on" in done.stdout
        assert checkpoints(tmp_path / "run")[-1].name == f"step-{updates:06d}"
    assert "after update 2" in done.stdout
    assert {update: len(keys) for update, keys in seen(tmp_path).items()} == {1: 2, 2: 2, 3: 2}
