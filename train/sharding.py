"""`trainer.strategy=fsdp`: weights, gradients and optimiser state spread over the processes (FSDP2).

Every process keeps a slice of each parameter, and gathers a block of the UNet while it computes it.
Checkpoints are whole, as from any other run: training may go on with another number of processes, or without.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from live2diff.model.unet import CausalUNet


def shard(unet: CausalUNet, mesh: DeviceMesh) -> None:
    """Spread the parameters of `unet` over the processes of `mesh`, in place; names stay as they are."""
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        fully_shard(block, mesh=mesh)
    fully_shard(unet, mesh=mesh)


def own_part(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of `tensor`."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(whole: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`whole`, spread over the processes if `other`, of the same shape, is; every process has to call it."""
    if not isinstance(other, DTensor) or whole.shape != other.shape:
        return whole
    return distribute_tensor(whole.to(other.device), other.device_mesh, other.placements)


def main_memory(value: Any, keep: bool = True) -> Any:
    """A copy of `value`, any nesting, in main memory: training goes on while it is written.

    What is spread over the processes is gathered a tensor at a time, for which every process has to call it;
    all of them at once would fill each device. Those that do not `keep` the tensors get None in their places.
    """
    if isinstance(value, torch.Tensor):
        tensor = value.full_tensor() if isinstance(value, DTensor) else value
        return tensor.detach().to("cpu", copy=True).contiguous() if keep else None
    if isinstance(value, dict):
        return {key: main_memory(item, keep) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(main_memory(item, keep) for item in value)
    return value


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, but with our checkpoints: whole tensors, through our `CheckpointIO`."""

    def __init__(self, world: int, backend: str):
        super().__init__(data_parallel_size=world, tensor_parallel_size=1, process_group_backend=backend)

    lightning_restore_optimizer = True  # pyright: ignore[reportAssignmentType]

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return Strategy.lightning_module_state_dict(self)

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return Strategy.optimizer_state(self, optimizer)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if not self.is_global_zero:
            main_memory(checkpoint, keep=False)  # the first process gathers while it copies
        Strategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, Path(checkpoint_path), weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        with torch.no_grad():
            for name, value in checkpoint["state_dict"].items():
                own[name].copy_(like(value, own[name]))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            spread = {
                number: {key: like(v, parameters[number]) if v.ndim else v for key, v in values.items()}
                for number, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": spread})
