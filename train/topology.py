"""How many processes train, and where: read off the launcher, so that no number is said twice.

`srun` and `torchrun` state it in the environment. A process that was started on its own starts the others
itself (Lightning does), on one machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from live2diff.errors import SetupError, UsageError


@dataclass(frozen=True)
class Topology:
    """Processes of a run.

    Attributes:
        launcher: who starts them.
        accelerator: what each computes on.
        devices, nodes: processes per machine, and machines.
        rank: number of this process among all.
    """

    launcher: Literal["local", "slurm", "torchrun"]
    accelerator: Literal["cpu", "cuda"]
    devices: int
    nodes: int
    rank: int = 0

    @property
    def world(self) -> int:
        return self.devices * self.nodes


def topology(trainer: Mapping[str, Any], environ: Mapping[str, str], gpus: int) -> Topology:
    """The processes of this run.

    Args:
        trainer: the `trainer` group of the configuration; `devices` and `accelerator` are read.
        environ: the process's environment.
        gpus: GPUs this process sees.

    Raises:
        UsageError: `trainer.devices` contradicts the launcher.
        SetupError: fewer GPUs than processes, or a launcher used in a way that would train the same model
            several times side by side.
    """
    accelerator = _accelerator(trainer["accelerator"], gpus)
    if "TORCHELASTIC_RUN_ID" in environ:
        devices = int(environ["LOCAL_WORLD_SIZE"])
        launcher, nodes = "torchrun", int(environ["WORLD_SIZE"]) // devices
        rank = int(environ["RANK"])
    elif _in_slurm(environ):
        launcher, (devices, nodes) = "slurm", _slurm_shape(environ)
        rank = int(environ["SLURM_PROCID"])
    else:
        wanted = trainer["devices"]
        launcher, nodes = "local", 1
        devices = max(gpus, 1) if wanted == "auto" and accelerator == "cuda" else wanted
        devices = 1 if devices == "auto" else devices
        rank = int(environ.get("LOCAL_RANK", "0"))  # set for those that Lightning starts
    if launcher != "local" and trainer["devices"] not in ("auto", devices):
        raise UsageError(
            f"trainer.devices={trainer['devices']}, but {launcher} started {devices} processes per machine; "
            "leave trainer.devices=auto"
        )
    # Several CPU processes only on request: a missing driver must not turn 8 GPUs into 8 slow trainers.
    if devices > gpus and (accelerator == "cuda" or (devices > 1 and trainer["accelerator"] == "auto")):
        raise SetupError(_too_few(trainer, launcher, devices, gpus))
    return Topology(launcher, accelerator, devices, nodes, rank)  # pyright: ignore[reportArgumentType]


def check_batch(trainer: Mapping[str, Any], world: int) -> None:
    """Refuse to start with another number of clips per update than `trainer.effective_batch` states.

    Raises:
        UsageError: with the arithmetic, and the accumulation that gives the number on `world` processes.
    """
    wanted, batch, accumulate = trainer["effective_batch"], trainer["batch"], trainer["accumulate"]
    found = batch * world * accumulate
    if wanted is None or found == wanted:
        return
    advice = f"set trainer.accumulate={wanted // (batch * world)}"
    if wanted % (batch * world):
        advice = f"choose a trainer.batch and a number of processes that divide {wanted}"
    raise UsageError(
        f"trainer.effective_batch={wanted}: trainer.batch={batch} x {world} processes x trainer.accumulate="
        f"{accumulate} is {found}; {advice}, or trainer.effective_batch={found} if that is meant"
    )


def _accelerator(wanted: str, gpus: int) -> str:
    if wanted == "cuda" and not gpus:
        raise SetupError("trainer.accelerator=cuda, but no GPU is visible; use trainer.accelerator=auto")
    return ("cuda" if gpus else "cpu") if wanted == "auto" else wanted


def _in_slurm(environ: Mapping[str, str]) -> bool:
    """Whether `srun` started this process, as one of those that train together."""
    if "SLURM_JOB_ID" not in environ:
        return False
    shell = environ.get("SLURM_JOB_NAME") in ("bash", "interactive")  # of `srun --pty bash`, of `salloc`
    if environ.get("SLURM_STEP_ID", "").isdigit() and "SLURM_PROCID" in environ:
        # The shell of an allocation may be a step as well, of one task: it is like any other machine.
        return not shell or int(environ.get("SLURM_STEP_NUM_TASKS", environ.get("SLURM_NTASKS", "1"))) > 1
    if not shell and int(environ.get("SLURM_NTASKS", "1")) > 1:
        raise SetupError(
            f"this job has {environ['SLURM_NTASKS']} tasks, but live2diff was not started with srun; "
            "write `srun live2diff train ...` (see slurm/train_multi_node.sbatch)"
        )
    return False


def _slurm_shape(environ: Mapping[str, str]) -> tuple[int, int]:
    """(tasks per node, nodes) of this job step, e.g. SLURM_STEP_TASKS_PER_NODE=2(x4)."""
    text = environ.get("SLURM_STEP_TASKS_PER_NODE") or environ["SLURM_TASKS_PER_NODE"]
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise SetupError(f"SLURM_STEP_TASKS_PER_NODE={text}: not understood; run under srun")
        counts += [int(match[1])] * int(match[2] or 1)
    if len(set(counts)) > 1:
        raise SetupError(
            f"the nodes have {text} tasks; every node needs as many: set --nodes and --ntasks-per-node"
        )
    return counts[0], len(counts)


def _too_few(trainer: Mapping[str, Any], launcher: str, devices: int, gpus: int) -> str:
    if launcher != "local":
        return (
            f"{devices} processes per machine, but each sees {gpus} GPUs; ask for --gpus-per-node={devices} "
            "(not --gpus-per-task), or train on CPUs with trainer.accelerator=cpu"
        )
    product = devices * trainer["accumulate"]
    fewer = max(count for count in range(1, max(gpus, 1) + 1) if product % count == 0)
    return (
        f"trainer.devices={devices}, but {gpus} GPUs are visible; set trainer.devices={fewer} "
        f"trainer.accumulate={product // fewer} to keep the product"
    )
