"""The processes of a run as Lightning sees them: how they meet, and how they leave."""

from __future__ import annotations

import os
import re
from typing import Any

import lightning
import torch
import torch.distributed as distributed
from lightning.fabric.plugins.environments import (
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.strategies import DDPStrategy, Strategy

from live2diff.errors import SetupError
from train.requeue import requeue
from train.sharding import Sharded
from train.signals import Signals
from train.topology import Topology

# What a collective says when the process on its other side is gone (gloo, NCCL).
_LOST = ("connection closed", "connection reset", "connection refused", "broken pipe", "timed out", "nccl")


def environment(processes: Topology) -> list[Any]:
    """The launcher as Lightning calls it; requeueing is ours. Named, as its own guess may differ."""
    if processes.launcher == "slurm":
        # Lightning reads the job's header. A step may have other tasks and nodes, and a header no
        # --ntasks-per-node; and a job named after a shell is no job to Lightning.
        os.environ |= {
            "SLURM_JOB_NAME": "live2diff",
            "SLURM_NTASKS": str(processes.world),
            "SLURM_NTASKS_PER_NODE": str(processes.devices),
            "SLURM_NNODES": str(processes.nodes),
            "SLURM_NODELIST": os.environ["SLURM_STEP_NODELIST"],
        }
        return [SLURMEnvironment(auto_requeue=False)]
    return [TorchElasticEnvironment() if processes.launcher == "torchrun" else LightningEnvironment()]


def strategy(processes: Topology, kind: str = "ddp") -> Strategy | str:
    """How gradients are summed, and whether every process has the whole model: `kind` is ddp or fsdp."""
    if processes.world == 1:
        return "auto"
    backend = "nccl" if processes.accelerator == "cuda" else "gloo"
    return Sharded(processes.world, backend) if kind == "fsdp" else DDPStrategy(process_group_backend=backend)


def meeting(processes: Topology) -> str:
    """One line that says who meets where."""
    shape = f"{processes.devices} on each of {processes.nodes} machines"
    if processes.launcher == "local":
        return f"{processes.world} processes, {shape}"
    (meets,) = environment(processes)
    return f"{processes.world} processes, {shape}, meet on {meets.main_address}:{meets.main_port}"


def stopped(trainer: lightning.Trainer, signals: Signals, processes: Topology, kept: bool) -> int:
    """The end of a run that a signal cut short; returns the exit code.

    Args:
        kept: whether there is a checkpoint to go on from. Without one the run is not put back into a queue:
            it would begin at the start each time.
    """
    received, code = _received_by_any(signals), None
    if trainer.is_global_zero:
        then = "run the same command again to continue" if kept else "trainer.save_every=null, so it is lost"
        print(f"stopped after update {trainer.global_step}; {then}", flush=True)
        code = requeue(received) if kept else None
    # A rank that left with another code would have srun kill the one that is still talking to SLURM.
    first = received[0] if received else 0
    code = trainer.strategy.broadcast(code)
    leave_together(trainer)
    if processes.launcher == "local" and processes.rank:
        return 0  # the first process, which started this one, would be killed for another code
    return 128 + first if code is None else code


def _received_by_any(signals: Signals) -> list[int]:
    """Numbers of the signals that came to any process of the run, the same on all: one may be told alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return signals.received
    everyone: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(everyone, signals.received)
    return list(dict.fromkeys(number for received in everyone for number in received))


def leave_together(trainer: lightning.Trainer) -> None:
    """Without this, two-node gloo runs die at exit now and then: one side closes while the other talks."""
    if distributed.is_available() and distributed.is_initialized():
        trainer.strategy.barrier()
        distributed.destroy_process_group()


def explained(error: RuntimeError, processes: Topology) -> SetupError | None:
    """What to tell of an error that the machine is to blame for; None if it is something else."""
    words = str(error)
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in words:
        return SetupError(
            f"rank {processes.rank} of {processes.world}: the memory is full ({_short(words)}); lower "
            "trainer.batch and raise trainer.accumulate by as much, set gradient_checkpointing=true, or "
            "have `live2diff data build` make columns; `--dry-run` estimates what a step needs"
        )
    if processes.world == 1 or not any(part in words.lower() for part in _LOST):
        return None
    return SetupError(
        f"rank {processes.rank} of {processes.world}: another process of this run is gone, its own log says "
        "why; run the same command again to continue from the last checkpoint"
    )


def _short(words: str) -> str:
    """How much was asked for, out of torch's paragraph."""
    found = re.search(r"[Tt]ried to allocate [\d.]+ \w+", words)
    return found[0] if found else words.strip().splitlines()[0]
