"""What is not trained of a UNet, in half precision while it is trained with mixed precision.

Autocast copies a frozen matrix to half precision wherever it is used, with gradient checkpointing twice a
step, and keeps the copies for the backward pass without it. The values are those that stay here, so a step
computes the same bits and needs half the memory for them. What autocast leaves in float32, such as norms,
stays as it is; validation and streaming compute in float32, with the values as they were.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}  # by trainer.precision


class Frozen:
    """Matrices and convolutions of `unet` that are not trained: narrowed, or whole as they are at the start.

    Parameters stay the same objects; their values are exchanged. The whole ones wait in main memory.

    Args:
        trainer: the `trainer` group of the configuration. Nothing is narrowed in full precision, nor with
            strategy=fsdp, where parameters are spread over the processes.
    """

    def __init__(self, unet: nn.Module, trainer: Mapping[str, Any]):
        self._unet = unet
        self._dtype = HALF.get(trainer["precision"]) if trainer["strategy"] == "ddp" else None
        self._whole: list[tuple[nn.Parameter, torch.Tensor]] = []  # while they are narrow

    def narrow(self) -> None:
        """What a step trains with. Costs nothing when it is so already."""
        if self._dtype is None or self._whole:
            return
        for module in self._unet.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                for parameter in module.parameters(recurse=False):
                    if not parameter.requires_grad:
                        self._whole.append((parameter, parameter.data.cpu()))
                        parameter.data = parameter.data.to(self._dtype)

    def widen(self) -> None:
        """As they were, bit for bit."""
        for parameter, value in self._whole:
            parameter.data = value.to(parameter.device)
        self._whole.clear()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """As they were inside; afterwards as before."""
        was_narrow = bool(self._whole)
        self.widen()
        try:
            yield
        finally:
            if was_narrow:
                self.narrow()
