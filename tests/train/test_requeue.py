"""Which ended jobs go back into the queue, and that they go once."""

from __future__ import annotations

import signal

import pytest

from train.requeue import parse_job, requeue, wants_requeue

RUNNING = {"JobState": "RUNNING", "BatchFlag": "1", "Requeue": "1", "PreemptTime": "None"}
PREEMPTED = RUNNING | {"PreemptTime": "2026-01-01T00:00:00"}
INSIDE = {"SLURM_JOB_ID": "42", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("received", "job", "expected"),
    [
        ([signal.SIGUSR1], RUNNING, True),
        ([signal.SIGUSR2], RUNNING, True),
        ([signal.SIGUSR1, signal.SIGTERM], RUNNING, True),
        ([signal.SIGTERM], PREEMPTED, True),
        ([signal.SIGTERM], RUNNING, False),
        ([signal.SIGTERM], RUNNING | {"JobState": "CANCELLED"}, False),
        ([signal.SIGUSR1, signal.SIGTERM], RUNNING | {"JobState": "CANCELLED"}, False),
        ([signal.SIGTERM], PREEMPTED | {"JobState": "PENDING"}, False),  # SLURM did it already
        ([signal.SIGUSR1], RUNNING | {"BatchFlag": "0"}, False),  # salloc: nobody would start it again
        ([signal.SIGUSR1], RUNNING | {"Requeue": "0"}, False),
        ([signal.SIGINT], RUNNING, False),
    ],
)
def test_who_goes_back(received, job, expected):
    assert wants_requeue(received, job) is expected


def fake_scontrol(folder, monkeypatch, state: str) -> None:
    tool = folder / "scontrol"
    tool.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {folder}/calls\n'
        f"[ $1 = show ] && echo 'JobId=42 JobName=a b JobState={state} Requeue=1 BatchFlag=1'\n"
        "exit 0\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_it_is_put_back_once(tmp_path, monkeypatch, capsys):
    fake_scontrol(tmp_path, monkeypatch, "RUNNING")
    assert requeue([signal.SIGUSR1], INSIDE) == 0
    assert (tmp_path / "calls").read_text().splitlines() == ["show job 42 --oneliner", "requeue 42"]
    assert "job 42 is back in the queue" in capsys.readouterr().out


def test_a_cancelled_job_stays_cancelled(tmp_path, monkeypatch):
    fake_scontrol(tmp_path, monkeypatch, "CANCELLED")
    assert requeue([signal.SIGTERM], INSIDE) is None
    assert (tmp_path / "calls").read_text().splitlines() == ["show job 42 --oneliner"]


def test_outside_slurm_nothing_is_asked(tmp_path, monkeypatch):
    fake_scontrol(tmp_path, monkeypatch, "RUNNING")
    assert requeue([signal.SIGUSR1], {}) is None
    assert not (tmp_path / "calls").exists()


@pytest.mark.parametrize("received", [[signal.SIGUSR1], [signal.SIGTERM], [signal.SIGUSR1, signal.SIGTERM]])
def test_without_scontrol_the_batch_script_is_asked(tmp_path, monkeypatch, received):
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = tmp_path / "requeue-42"
    assert requeue(received, INSIDE | {"L2D_REQUEUE": str(asked)}) == 0
    assert asked.read_text().split() == [number.name for number in received]


def test_without_scontrol_an_interrupted_job_ends(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = tmp_path / "requeue-42"
    assert requeue([signal.SIGINT], INSIDE | {"L2D_REQUEUE": str(asked)}) is None
    assert not asked.exists()


@pytest.mark.parametrize("more", [{}, {"L2D_REQUEUE": "/nowhere/requeue-42"}])
def test_without_anyone_to_ask_the_job_ends(tmp_path, monkeypatch, capsys, more):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert requeue([signal.SIGUSR1], INSIDE | more) is None
    assert "job 42 could not be put back into the queue" in capsys.readouterr().out


def test_the_answer_of_scontrol_is_read():
    job = parse_job("JobId=1 JobName=my job Command=/a b JobState=RUNNING Reason=None")
    assert job["JobState"] == "RUNNING"
