"""slurm/common.sh: which jobs its `run` puts back into the queue. scontrol is told what to say."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.conftest import ROOT

JOB = "JobId=42 JobName=a b JobState=RUNNING Reason=None Requeue=1 BatchFlag=1 PreemptTime=None SubmitTime=x"
PREEMPTED = JOB.replace("PreemptTime=None", "PreemptTime=2026-01-01T00:00:00")
CANCELLED = PREEMPTED.replace("RUNNING", "CANCELLED")
# What the ranks do: rank 0 writes the file, and their exit code is that of one that srun killed, or 0.
ASK = 'echo {} > "$L2D_REQUEUE"; exit {}'


def run(folder, job: str, command: str) -> tuple[int, bool]:
    """The code of a batch script whose `run` got this command, and whether the job was put back."""
    folder.joinpath("scontrol").write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/calls\ncase $1 in show) echo "{job}" ;; esac\n'
    )
    folder.joinpath("scontrol").chmod(0o755)
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "SRUN", "L2D"))
    }
    environ |= {
        "PATH": f"{folder}:{environ['PATH']}",
        "SLURM_JOB_ID": "42",
        "L2D_ROOT": str(ROOT),
        "L2D_LOGS": str(folder),
    }
    (folder / "42").mkdir(exist_ok=True)
    (folder / "42/requeue-42").write_text("SIGUSR1\n")  # left by an earlier start of this job
    script = 'set -euo pipefail; source "$L2D_ROOT/slurm/common.sh"; start_logs; run bash -c "$0"'
    done = subprocess.run(["bash", "-c", script, command], env=environ, capture_output=True, text=True)
    return done.returncode, "requeue 42" in (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize(
    ("job", "signals", "code", "put_back"),
    [
        (JOB, "SIGUSR1", 0, True),
        (JOB, "SIGUSR2", 0, True),
        (PREEMPTED, "SIGTERM", 0, True),
        (JOB, "SIGTERM", 143, False),
        (CANCELLED, "SIGTERM", 143, False),
        (CANCELLED, "SIGUSR1 SIGTERM", 138, False),
        (JOB.replace("Requeue=1", "Requeue=0"), "SIGUSR1", 138, False),
    ],
)
def test_who_goes_back(tmp_path, job, signals, code, put_back):
    assert run(tmp_path, job, ASK.format(signals, 0)) == (code, put_back)


def test_ranks_that_srun_killed_hide_nothing(tmp_path):
    assert run(tmp_path, JOB, ASK.format("SIGUSR1", 137)) == (0, True)


@pytest.mark.parametrize("code", [0, 3, 85, 143])
def test_who_does_not_ask_ends_as_it_ended(tmp_path, code):
    assert run(tmp_path, PREEMPTED, f"exit {code}") == (code, False)
