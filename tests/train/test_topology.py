"""Which processes train: read off srun, torchrun or the configuration."""

from __future__ import annotations

import pytest

from live2diff.errors import SetupError, UsageError
from train.topology import Topology, topology

STEP = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "stage1",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "0",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
}

# What processes of an interactive job find: its name is `interactive` or `bash`. Read off a real cluster, all
# but SALLOC_STEP: the shell of a cluster with LaunchParameters=use_interactive_step.
SALLOC = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "interactive",
    "SLURM_NTASKS": "8",
    "SLURM_TASKS_PER_NODE": "8",
}
IN_A_STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_STEP_TASKS_PER_NODE": "1"}
PTY = {
    **SALLOC,
    **IN_A_STEP,
    "SLURM_JOB_NAME": "bash",
    "SLURM_NTASKS": "1",
    "SLURM_STEP_NUM_TASKS": "1",
}
SALLOC_STEP = {**SALLOC, **IN_A_STEP, "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"}
SRUN_IN_SALLOC = {
    **SALLOC,
    **IN_A_STEP,
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "8",
}


def settings(devices="auto", accelerator="auto"):
    return {"devices": devices, "accelerator": accelerator, "accumulate": 32}


@pytest.mark.parametrize(
    ("trainer", "environ", "gpus", "expected"),
    [
        (settings(), {}, 0, Topology("local", "cpu", 1, 1)),
        (settings(), {}, 4, Topology("local", "cuda", 4, 1)),
        (settings(2), {}, 4, Topology("local", "cuda", 2, 1)),
        (settings(2, "cpu"), {}, 0, Topology("local", "cpu", 2, 1)),
        (settings(8), STEP | {"SLURM_STEP_TASKS_PER_NODE": "8"}, 8, Topology("slurm", "cuda", 8, 1)),
        (settings(), STEP | {"SLURM_STEP_TASKS_PER_NODE": "4(x2)"}, 4, Topology("slurm", "cuda", 4, 2)),
        (settings(), STEP | {"SLURM_STEP_TASKS_PER_NODE": "2,2"}, 2, Topology("slurm", "cuda", 2, 2)),
        # A shell inside an allocation is like any other machine.
        (settings(), SALLOC, 8, Topology("local", "cuda", 8, 1)),
        (settings(), SALLOC_STEP, 8, Topology("local", "cuda", 8, 1)),
        (settings(2), PTY, 2, Topology("local", "cuda", 2, 1)),
        # Its srun is like any other srun: eight tasks that take themselves for local train eight models.
        (settings(), SRUN_IN_SALLOC, 8, Topology("slurm", "cuda", 8, 1, 5)),
        (settings(), {**SRUN_IN_SALLOC, "SLURM_JOB_NAME": "bash"}, 8, Topology("slurm", "cuda", 8, 1, 5)),
        (
            settings(),
            {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8", "RANK": "9"},
            8,
            Topology("torchrun", "cuda", 8, 2, 9),
        ),
    ],
)
def test_the_launcher_decides(trainer, environ, gpus, expected):
    assert topology(trainer, environ, gpus) == expected


@pytest.mark.parametrize(
    ("trainer", "environ", "gpus", "kind", "words"),
    [
        (settings(8), {}, 0, SetupError, "0 GPUs are visible; set trainer.devices=1 trainer.accumulate=256 "),
        (settings(8), {}, 3, SetupError, "3 GPUs are visible; set trainer.devices=2 trainer.accumulate=128 "),
        (settings(1, "cuda"), {}, 0, SetupError, "trainer.accelerator=cuda, but no GPU"),
        (
            settings(),
            STEP | {"SLURM_STEP_TASKS_PER_NODE": "4"},
            1,
            SetupError,
            "4 processes per machine, but each sees 1 GPUs; ask for --gpus-per-node=4",
        ),
        (settings(), STEP | {"SLURM_STEP_TASKS_PER_NODE": "2"}, 0, SetupError, "trainer.accelerator=cpu"),
        (settings(), STEP | {"SLURM_STEP_TASKS_PER_NODE": "4,2"}, 8, SetupError, "every node needs as many"),
        (
            settings(2),
            STEP | {"SLURM_STEP_TASKS_PER_NODE": "4"},
            4,
            UsageError,
            "trainer.devices=2, but slurm started 4 processes",
        ),
        (
            settings(),
            {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "stage1", "SLURM_NTASKS": "2"},
            2,
            SetupError,
            "not started with srun",
        ),
    ],
)
def test_what_would_train_the_wrong_number_of_models_is_refused(trainer, environ, gpus, kind, words):
    with pytest.raises(kind, match=words):
        topology(trainer, environ, gpus)
