"""Random draws that belong to a sample.

Every draw comes from a generator seeded by (seed, epoch, sample key). A sample is then trained with the
same crop, timestep and noise whichever worker, micro-batch or device takes it: accumulating n
micro-batches is one large batch, and a resumed run continues exactly, with no generator state to save.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch


def sample_seed(seed: int, epoch: int, key: str) -> int:
    """63 bits for one visit of one sample."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{key}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def draw(
    seeds: Sequence[int],
    shape: tuple[int, ...],
    timesteps: int,
    device: torch.device,
    offset: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What one training step draws per sample, on the CPU's generator so that all devices agree.

    Args:
        seeds: one per sample.
        shape: of one sample's latents, (C, F, h, w).
        timesteps: length of the noise schedule.
        offset: strength of offset noise, standard normal and the same over a channel of the clip. Other noise
            hardly changes a channel's mean, so that a model learns to keep the brightness it is given. One
            number for all frames: if each had its own, the mean over frames would again tell what it was.

    Returns:
        timestep (B,) uniform, one per clip; noise (B, C, F, h, w); posterior noise of the same shape.
    """
    times, noises, posteriors = [], [], []
    for seed in seeds:
        source = torch.Generator().manual_seed(int(seed))
        times.append(torch.randint(timesteps, (), generator=source))
        noises.append(torch.randn(shape, generator=source))
        posteriors.append(torch.randn(shape, generator=source))
        if offset:  # the last draw: the others are what they are without it
            noises[-1] += offset * torch.randn(shape[0], 1, 1, 1, generator=source)
    return tuple(torch.stack(drawn).to(device) for drawn in (times, noises, posteriors))  # pyright: ignore
