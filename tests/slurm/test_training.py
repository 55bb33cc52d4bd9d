"""The shipped batch scripts on a real cluster: they train, and come back after every kind of interruption."""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from live2diff.runs import checkpoints
from tests.conftest import ROOT
from tests.slurm.cluster import Cluster, wait

pytestmark = pytest.mark.slurm

UPDATES, CLIPS = 60, 120
SINGLE, MULTI = ("--nodes=1", "--ntasks-per-node=2"), ("--nodes=2", "--ntasks-per-node=1")


class Job:
    """One training job of `UPDATES` updates, each of one clip on either of two ranks: every clip once."""

    def __init__(self, cluster: Cluster, script: str, shape: tuple[str, ...], dataset: Path, folder: Path):
        self.cluster, self.run, self.logs = cluster, folder / "run", folder / "logs"
        self.command = [
            str(ROOT / "slurm/submit.sh"), *shape, "--gpus-per-node=0", "--cpus-per-task=1", "--time=20",
            str(ROOT / f"slurm/{script}.sbatch"),
            "experiment=tiny", f"data.path={dataset}", "data.size=32", "model.settings.size=[32,32]",
            f"run_dir={self.run}", "trainer.accelerator=cpu", "trainer.batch=1",
            f"trainer.updates={UPDATES}", "trainer.save_every=10", "trainer.log_every=1",
            "trainer.log_samples=true",
        ]  # fmt: skip
        self.submit()

    def submit(self) -> None:
        said = self.cluster.run(
            *self.command,
            L2D_LOGS=str(self.logs),
            L2D_ACTIVATE=str(Path(sys.executable).parent / "activate"),
            OMP_NUM_THREADS="1",
        )
        match = re.search(r"job (\d+) submitted", said)
        assert match, said
        self.number = match[1]

    def reaches(self, update: int) -> None:
        """Wait until that many updates are logged."""
        wait(lambda: len(self.samples(0)) >= update, 240, self.words)

    def finishes(self) -> None:
        assert self.cluster.wait_for(self.number, "COMPLETED", "FAILED", "CANCELLED") == "COMPLETED", (
            self.words()
        )

    def samples(self, rank: int) -> list[dict[str, str]]:
        path = self.run / f"samples/rank-{rank:04d}.csv"
        return list(csv.DictReader(path.read_text().splitlines())) if path.exists() else []

    def words(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.logs.rglob("*.log")))

    def restarts(self) -> int:
        return int(self.cluster.job(self.number)["Restarts"])

    def check(self) -> None:
        """All updates are done, and every clip was seen exactly once, whatever came in between."""
        assert checkpoints(self.run)[-1].name == f"step-{UPDATES:06d}"
        rows = [*self.samples(0), *self.samples(1)]
        assert sorted(int(row["update"]) for row in rows) == sorted([*range(1, UPDATES + 1)] * 2)
        assert set(Counter(row["key"] for row in rows).values()) == {1} and len(rows) == CLIPS


def test_one_node_with_two_tasks(cluster, dataset, tmp_path):
    job = Job(cluster, "train_single_node", SINGLE, dataset, tmp_path)
    job.finishes()
    job.check()
    logs = job.logs / job.number
    assert sorted(path.name for path in logs.iterdir()) == [
        f"job-{job.number}-0.txt", "task-0.log", "task-1.log",
    ]  # fmt: skip
    assert f"next: live2diff export {job.run}" in (logs / "task-0.log").read_text()


def test_two_nodes_are_warned_before_the_time_limit(cluster, dataset, tmp_path):
    """USR1, as `--signal=USR1@300` sends it: save, requeue once, continue, finish."""
    job = Job(cluster, "train_multi_node", MULTI, dataset, tmp_path)
    job.reaches(5)
    cluster.run("scancel", "--signal=USR1", job.number)
    wait(lambda: job.restarts() == 1, 60, job.words)
    job.finishes()
    job.check()
    assert job.restarts() == 1
    words = job.words()
    assert words.count("is back in the queue") == 1 and words.count("continuing") == 1
    assert words.count("2 processes, 1 on each of 2 machines, meet on n1:") == 2  # at both starts


@pytest.mark.parametrize("partition", ["low", "lowgrace"])
def test_a_job_of_a_higher_partition_takes_the_nodes(cluster, dataset, tmp_path, partition):
    job = Job(
        cluster, "train_preemptible", (*SINGLE, f"--partition={partition}", "--exclusive"), dataset, tmp_path
    )
    job.reaches(30)
    first = cluster.run(
        "sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null",
        "--wrap=sleep 3",
    )  # fmt: skip
    cluster.wait_for(first, "COMPLETED")
    job.finishes()
    job.check()
    assert job.restarts() == 1


def test_a_cancelled_job_stays_cancelled_and_can_be_submitted_again(cluster, dataset, tmp_path):
    job = Job(cluster, "train_single_node", SINGLE, dataset, tmp_path)
    job.reaches(5)
    cluster.run("scancel", job.number)
    cluster.wait_for(job.number, "CANCELLED")
    wait(lambda: not cluster.run("squeue", "-h", "-j", job.number, check=False), 60)
    assert job.cluster.job(job.number)["JobState"] == "CANCELLED" and job.restarts() == 0
    job.submit()
    job.finishes()
    job.check()
