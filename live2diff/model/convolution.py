"""3x3 convolutions that are bound by their weights, as matrix products. For streaming on a CPU.

SD1.5's deepest levels have 4x4 to 8x8 latents and 1280 channels: 59 MB of weights meet a few dozen pixels.
The CPU library brings the weights into another order at every call, which takes longer than the convolution.
In `channels_last` a weight is already the matrix that a product needs, so a copy of the few pixels is all
there is to prepare: about two to three times as fast (`docs/performance.md`). Equal to float rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

# Pixels for each channel of the input: with more, the convolution is the faster one (320 to 2560 channels).
_FEW = 0.25
_enabled = True


class Conv3x3(nn.Conv2d):
    """`nn.Conv2d` with kernel 3, stride 1, padding 1, that takes the faster way without gradients."""

    @classmethod
    def like(cls, conv: nn.Conv2d) -> Conv3x3:
        """On the parameters of `conv`: the same tensors, not copies."""
        with torch.device("meta"):
            own = cls(conv.in_channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None)
        own.weight, own.bias = conv.weight, conv.bias
        return own.train(conv.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        batch, channels, height, width = input.shape
        if (
            not _enabled
            or torch.is_grad_enabled()
            or input.device.type != "cpu"
            or batch * height * width > _FEW * channels
            or not self.weight.is_contiguous(memory_format=torch.channels_last)
        ):
            return super().forward(input)
        padded = F.pad(input.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
        seen = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
        matrix = self.weight.permute(0, 2, 3, 1).flatten(1)  # a view: (out, 9 in)
        return F.linear(torch.cat(seen, dim=-1), matrix, self.bias).permute(0, 3, 1, 2)


def install(module: nn.Module) -> None:
    """Replace all convolutions in `module` that `Conv3x3` can stand for; names and parameters stay."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and _fits(child):
                setattr(parent, name, Conv3x3.like(child))


def _fits(conv: nn.Conv2d) -> bool:
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode)
    return shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1, "zeros")


@contextmanager
def as_the_library_does() -> Iterator[None]:
    """Inside, every convolution is torch's own: how code that does not know of this file runs."""
    global _enabled
    _enabled = False
    try:
        yield
    finally:
        _enabled = True
