"""The depth branch: a small convolution stack whose output is added to `conv_in`'s (Live2Diff, Sec. 3.4)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

# Channels after conv_in and after each of the six blocks, as in the authors' release.
CHANNELS = (16, 16, 32, 32, 96, 96, 256)


class DepthBranch(nn.Module):
    """Depth latents to a residual on `conv_in`. Its last layer starts at zero: at first it changes nothing.

    Args:
        in_channels: channels of the depth latents, the VAE's 4.
        out_channels: width of `conv_in`'s output.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()

        def conv(before: int, after: int) -> nn.Conv2d:
            return nn.Conv2d(before, after, kernel_size=3, padding=1)

        self.conv_in = conv(in_channels, CHANNELS[0])
        self.blocks = nn.ModuleList(
            conv(before, after) for before, after in zip(CHANNELS[:-1], CHANNELS[1:], strict=True)
        )
        # PyTorch's own start makes each layer's output smaller than its input: after seven, depth is a
        # thousandth of what goes in, and hundreds of updates pass before it is heard. This keeps its size
        # (He et al. 2015): sqrt(6) times the weights that are drawn, no offsets.
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.mul_(math.sqrt(6) if name.endswith("weight") else 0)
        self.conv_out = conv(CHANNELS[-1], out_channels)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, depth: torch.Tensor) -> torch.Tensor:
        """depth: (N, in_channels, H, W) -> (N, out_channels, H, W)."""
        x = F.silu(self.conv_in(depth))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)
