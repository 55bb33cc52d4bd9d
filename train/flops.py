"""How much a training step computes, and how much this device could: what TFLOP/s and MFU are made of."""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from train.frozen import HALF

if TYPE_CHECKING:
    from train.module import Diffusion

_SIDE = {
    "cuda": 8192,
    "cpu": 1024,
}  # of the square matrices whose product is timed: large enough for full speed
_SECONDS = 0.3


def training_flops(module: Diffusion, shape: tuple[int, int, int, int]) -> int:
    """Floating point operations of one clip's way through the UNet, forward and backward.

    Counted by PyTorch on tensors without memory. Gradients are taken where they are wanted only, so frozen
    weights cost the gradient that goes through them, not one of their own. What gradient checkpointing
    computes a second time is left out, and so are the frozen nets that encode frames: neither teaches more.

    Args:
        module: before its parameters are spread over processes.
        shape: (C, F, h, w) of a clip's latents.
    """
    unet = module.unet
    tensors = {**dict(unet.named_parameters()), **dict(unet.named_buffers())}
    shapes = {
        name: torch.empty_like(tensor, device="meta").requires_grad_(tensor.requires_grad)
        for name, tensor in tensors.items()
    }
    noisy = torch.empty(1, *shape, device="meta")
    text = torch.empty(
        1, module.model.settings.text.max_length, unet.config.cross_attention_dim, device="meta"
    )
    depth = torch.empty_like(noisy) if module.config["depth"] else None
    timestep = torch.zeros(1, dtype=torch.long, device="meta")
    # Who sees whom is worked out from values, which there are none of here.
    view = copy.copy(unet._clip_view(module.config["mask"], torch.empty(1, *shape)))
    view.visible, view.position = view.visible.to("meta"), view.position.to("meta")
    unet._views[module.config["mask"], shape[1], noisy.device] = view
    again = unet.is_gradient_checkpointing
    unet.disable_gradient_checkpointing()
    try:
        with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
            said = functional_call(unet, shapes, (noisy, timestep, text, depth, module.config["mask"]))
            said.sum().backward()
    finally:
        if again:
            unet.enable_gradient_checkpointing()
    return counter.get_total_flops()


def matmul_rate(device: torch.device, precision: str) -> float:
    """Floating point operations per second of a large matrix product on `device`, the best of several.

    Args:
        precision: as `trainer.precision`; the product is taken in its narrow type.
    """
    side = _SIDE[device.type]
    source = torch.Generator(device).manual_seed(0)  # not the run's own generator
    matrix = torch.randn(side, side, generator=source, device=device).to(HALF.get(precision, torch.float32))
    best, end = float("inf"), time.monotonic() + _SECONDS
    torch.mm(matrix, matrix)
    while time.monotonic() < end:
        _wait(device)
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
