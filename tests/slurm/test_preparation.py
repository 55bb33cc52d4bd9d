"""slurm/prep_array.sbatch on a real cluster: an array, a task of it killed, submitted again, merged."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from data_prep.build import build, merge
from live2diff.toy import write_videos
from tests.conftest import ROOT
from tests.data_prep.fake import contents
from tests.slurm.cluster import Cluster, wait

pytestmark = pytest.mark.slurm

SMALL = ["prep=tiny", "sources_per_shard=2", "val_fraction=0.1"]


def submit(cluster: Cluster, folder: Path) -> str:
    said = cluster.run(
        str(ROOT / "slurm/submit.sh"), "--array=0-3", "--cpus-per-task=2", "--time=20",
        str(ROOT / "slurm/prep_array.sbatch"), str(folder / "in"), "--out", str(folder / "out"), *SMALL,
        L2D_LOGS=str(folder / "logs"),
        L2D_ACTIVATE=str(Path(sys.executable).parent / "activate"),
        OMP_NUM_THREADS="1",
    )  # fmt: skip
    match = re.search(r"job (\d+) submitted", said)
    assert match, said
    return match[1]


def test_an_array_killed_and_submitted_again(cluster: Cluster, tmp_path: Path):
    write_videos(tmp_path / "in", 24, seconds=3, fps=8, size=(64, 64), depth=False)
    build([str(tmp_path / "in")], tmp_path / "whole", SMALL)
    out = tmp_path / "out"

    def ended(job: str) -> bool:
        return not cluster.run("squeue", "-h", "-j", job, check=False)

    first = submit(cluster, tmp_path)
    wait(lambda: any(out.glob("*/clips-*.json")), 120)
    cluster.run("scancel", "--signal=KILL", "--full", f"{first}_1")
    second = submit(cluster, tmp_path)  # while the rest of the first is running
    wait(lambda: ended(first) and ended(second), 240)
    third = submit(cluster, tmp_path)  # for what the second left to the first, or the first lost
    wait(lambda: ended(third), 240)
    merge(out)
    assert contents(out) == contents(tmp_path / "whole")
    logs = [path.read_text() for path in (tmp_path / "logs").glob("prep_array-*.log")]
    assert len(logs) == 12 and sum("slice 1/4" in text for text in logs) == 3
    # Again was done only what the killed task had begun, at most two shards of two files and a look ahead.
    done = [line for text in logs for line in text.splitlines() if " -> " in line]
    assert len(set(done)) == 24 and len(done) <= 24 + 8
