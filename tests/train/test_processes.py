"""Lightning counts the processes as Topology does, whatever the header of a SLURM job says."""

from __future__ import annotations

import warnings

import lightning
import pytest

from train.processes import environment, meeting, strategy
from train.topology import topology

TRAINER = {"devices": "auto", "accelerator": "cpu", "accumulate": 1}
# Of the first of two tasks on one node; the job has no --ntasks-per-node.
TASK = {
    "SLURM_JOB_ID": "42",
    "SLURM_JOB_NAME": "stage1",
    "SLURM_NNODES": "1",
    "SLURM_NODELIST": "n1",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "n1",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2",
}
ALONE = {"SLURM_JOB_ID": "42", "SLURM_JOB_NAME": "stage1", "SLURM_NTASKS": "1"}
HEADER = {"SLURM_NTASKS_PER_NODE": "8", "SLURM_NTASKS": "16", "SLURM_NNODES": "2", "SLURM_NODELIST": "n[1-2]"}


@pytest.mark.parametrize(
    ("environ", "meets"),
    [
        (TASK, "n1"),
        (TASK | HEADER, "n1"),
        (TASK | HEADER | {"SLURM_STEP_NODELIST": "n2"}, "n2"),
        (TASK | {"SLURM_JOB_NAME": "interactive", "SLURM_NTASKS_PER_NODE": "2"}, "n1"),
    ],
    ids=["no --ntasks-per-node", "the header has other numbers", "the second node alone", "salloc"],
)
def test_a_step_of_a_job(environ, meets, tmp_path, monkeypatch):
    (tmp_path / "srun").touch(0o755)  # Lightning warns where it is installed but seems not to be used
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    trainer = lightning_under(environ, TRAINER, monkeypatch)
    assert trainer.world_size == 2
    where = f"2 processes, 2 on each of 1 machines, meet on {meets}:15042"
    assert meeting(topology(TRAINER, environ, 0)) == where


def test_a_job_of_one_task_that_starts_the_others_itself(monkeypatch):
    trainer = lightning_under(ALONE, TRAINER | {"devices": 2}, monkeypatch)
    assert trainer.world_size == 2


def lightning_under(environ, settings, monkeypatch) -> lightning.Trainer:
    """The trainer in a process with these variables; a warning is an error."""
    for name in (*TASK, *HEADER, "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # so that each is as it was afterwards
        monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    processes = topology(settings, environ, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return lightning.Trainer(
            accelerator="cpu",
            devices=processes.devices,
            num_nodes=processes.nodes,
            strategy=strategy(processes),
            plugins=environment(processes),
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
