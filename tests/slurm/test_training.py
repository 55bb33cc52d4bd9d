"""The shipped batch scripts on a real cluster: they train, and come back after every kind of interruption."""

from __future__ import annotations

import csv
import os
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

    def __init__(
        self,
        cluster: Cluster,
        script: str,
        shape: tuple[str, ...],
        dataset: Path,
        folder: Path,
        path: str = os.environ["PATH"],
    ):
        self.cluster, self.run, self.logs, self.path = cluster, folder / "run", folder / "logs", path
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
            L2D_IMAGE=str(self.run.parent / "image.sif"),
            PATH=self.path,
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
    take_the_nodes(cluster)
    job.finishes()
    job.check()
    assert job.restarts() == 1


def take_the_nodes(cluster: Cluster) -> None:
    """A job of the highest partition comes, and goes."""
    job = cluster.run(
        "sbatch", "--parsable", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null",
        "--wrap=sleep 3",
    )  # fmt: skip
    cluster.wait_for(job, "COMPLETED")


def test_a_container_without_slurm_in_it(cluster, dataset, tmp_path):
    """Warned, and later pre-empted: both times the batch script puts the job back."""
    tools = tmp_path / "bin"
    tools.mkdir()
    inside = Path(sys.executable).parent  # and nothing of the machine, scontrol least of all
    (tools / "apptainer").write_text(
        "#!/bin/bash\n"
        '[ "$1 $2 $3 $5 ${7##*/}" = "exec --nv --bind --pwd image.sif" ] || exit 9\n'
        f'cd "$6" && shift 7 && PATH={inside} exec "$@"\n'
    )
    (tools / "apptainer").chmod(0o755)
    (tmp_path / "image.sif").touch()
    job = Job(
        cluster, "train_container", (*SINGLE, "--partition=lowgrace", "--exclusive"), dataset, tmp_path,
        f"{tools}:{os.environ['PATH']}",
    )  # fmt: skip
    job.reaches(5)
    cluster.run("scancel", "--signal=USR1", job.number)
    wait(lambda: job.restarts() == 1, 60, job.words)
    job.reaches(30)
    take_the_nodes(cluster)
    job.finishes()
    job.check()
    assert job.restarts() == 2
    words = job.words()
    assert words.count("the batch script is asked") == 2 and "is back in the queue" not in words


def test_a_task_gets_the_cores_that_the_job_asked_for(cluster, tmp_path):
    """Read off a step of one task on a node with cores for two: srun alone would give it all of them."""
    script = tmp_path / "look.sbatch"
    script.write_text(
        "#!/usr/bin/env bash\nset -euo pipefail\n"
        'source "$L2D_ROOT/slurm/common.sh"\nstart_logs\n'
        "run srun --ntasks=1 bash -c 'scontrol show step $SLURM_JOB_ID.$SLURM_STEP_ID'\n"
    )
    said = cluster.run(
        str(ROOT / "slurm/submit.sh"), "--ntasks-per-node=2", "--cpus-per-task=3", str(script),
        L2D_LOGS=str(tmp_path),
    )  # fmt: skip
    match = re.search(r"job (\d+) submitted; its log: (\S+),", said)
    assert match, said
    cluster.wait_for(match[1], "COMPLETED", "FAILED")
    assert " CPUs=3 " in Path(match[2]).read_text()


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
