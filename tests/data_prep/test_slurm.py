"""slurm/prep_array.sbatch, run as SLURM runs it: with its variables set, once per task of an array."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import data_prep.build as building
from data_prep.build import build, merge
from tests.data_prep.fake import FakeChildren, contents, make_sources

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "slurm/prep_array.sbatch"
SMALL = ["prep=tiny", "sources_per_shard=2", "val_fraction=0.2"]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return make_sources(tmp_path / "the videos")


@pytest.fixture
def task(tmp_path: Path, sources: Path):
    """task(id, of=(first, ..., last), more=...) runs one task of an array; returns the finished process."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "live2diff").write_text(
        f'#!/bin/sh\nshift 2\nexec {sys.executable} -m tests.data_prep.fake 0 "$@"\n'
    )
    (tools / "live2diff").chmod(0o755)
    (tools / "activate").write_text(f"PATH={tools}:$PATH\n")

    def run(id_: int | None, of: range | list[int] = range(4), **more: str) -> subprocess.CompletedProcess:
        array = {
            "SLURM_ARRAY_TASK_ID": str(id_),
            "SLURM_ARRAY_TASK_MIN": str(min(of)),
            "SLURM_ARRAY_TASK_MAX": str(max(of)),
            "SLURM_ARRAY_TASK_COUNT": str(len(of)),
        }
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "L2D_"))}
        own = {
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_CPUS_PER_TASK": "2",
            "L2D_ACTIVATE": str(tools / "activate"),
        }
        return subprocess.run(
            ["bash", str(SCRIPT), str(sources), "--out", str(tmp_path / "out"), *SMALL],
            cwd=tmp_path,
            env={**clean, **own, **(array if id_ is not None else {}), **more},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def test_the_script_is_sound():
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-x", str(SCRIPT)], check=True, cwd=ROOT)
    text = SCRIPT.read_text()
    assert "set -euo pipefail" in text and "#SBATCH --open-mode=append" in text and "%A_%a" in text


def test_an_array_and_a_few_of_its_tasks_again_give_the_bytes_of_one_run(
    task, sources, tmp_path, monkeypatch
):
    monkeypatch.setattr(building, "Children", FakeChildren)
    build([str(sources)], tmp_path / "whole", SMALL)
    for id_ in (2, 0):
        done = task(id_, of=range(3))
        assert done.returncode == 0, done.stderr
    assert "slice 0/3" in done.stdout and "--merge --out" in done.stdout
    done = task(1, of=[1], L2D_SLICES="3", SLURM_RESTART_COUNT="1")
    assert done.returncode == 0 and "start 2" in done.stdout
    merge(tmp_path / "out")
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("id_", "of", "more", "message"),
    [
        (None, [0], {}, "submit with --array=0-N"),
        (1, range(1, 5), {}, "the array is not 0-N"),
        (0, [0, 3], {}, "the array is not 0-N"),
        (3, [3], {"L2D_SLICES": "3"}, "task 3, but only 3 slices"),
        (0, range(4), {"SLURM_SUBMIT_DIR": "/nowhere"}, "common.sh"),
    ],
)
def test_wrong_arrays_are_refused(task, tmp_path, id_, of, more, message):
    done = task(id_, of, **more)
    assert done.returncode != 0 and message in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_exit_code_is_that_of_the_build(task, sources, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").touch()
    done = task(0)
    assert done.returncode == 2 and "is not empty and no dataset" in done.stderr
