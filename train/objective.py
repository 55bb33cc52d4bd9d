"""What the UNet is to predict, and how far off it is.

    noise          offset noise (crosslabs.org, "Diffusion with Offset Noise", 2023) is drawn in `train.noise`
    prediction     epsilon, the noise, or v (Salimans & Ho 2022, Sec. 4): v = alpha noise - sigma clean
    distance       l1 (Live2Diff, Sec. 3.2), mse (AnimateDiff, PIA), or huber
    weight         1, or by the noise level of the clip (min-SNR, Hang et al. 2023)

Which prediction is a setting of the model, `noise.prediction`: the stream must undo it
(`live2diff.stream.schedule`). The rest only matters in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

from live2diff.settings import NoiseSchedule

# Squared below the knee, l1 above it. With torch's default of 1 it would be mse: few errors are larger.
_KNEE = 0.1
DISTANCES = {"l1": F.l1_loss, "mse": F.mse_loss, "huber": partial(F.smooth_l1_loss, beta=_KNEE)}


class Objective:
    """The training objective of a model.

    Args:
        noise: the model's schedule; it says what is predicted.
        trainer: the `trainer` group of the configuration; `loss` and `min_snr` are read.
    """

    def __init__(self, noise: NoiseSchedule, trainer: Mapping[str, Any]):
        self._prediction, self._min_snr = noise.prediction, trainer["min_snr"]
        self._distance = DISTANCES[trainer["loss"]]
        self._schedule = DDPMScheduler(**noise.scheduler_config())
        self.timesteps = noise.timesteps

    def noisy(self, clean: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Clean latents (B, C, F, h, w) at the levels of `timestep`, (B,)."""
        return self._schedule.add_noise(clean, noise, timestep)  # pyright: ignore[reportArgumentType]

    def target(self, clean: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """What the UNet should say about `noisy(clean, noise, timestep)`, of the same shape."""
        if self._prediction == "epsilon":
            return noise
        return self._schedule.get_velocity(clean, noise, timestep)  # pyright: ignore[reportArgumentType]

    def losses(self, predicted: torch.Tensor, target: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """The weighted distance of each clip, (B,): their mean over an effective batch is the loss."""
        distances = self._distance(predicted.float(), target, reduction="none").flatten(1).mean(1)
        return distances * self.weight(timestep)

    def weight(self, timestep: torch.Tensor) -> torch.Tensor:
        """Weight of a clip at `timestep`, (B,).

        Min-SNR (Hang et al. 2023, Sec. 3.4) weighs the error of the clean clip by min(SNR, gamma). For the
        squared error that is min(SNR, gamma) / SNR on the noise and / (SNR + 1) on v; other distances take
        the same weights.
        """
        if self._min_snr is None:
            return torch.ones_like(timestep, dtype=torch.float32)
        signal = self._schedule.alphas_cumprod.to(timestep.device)[timestep]
        snr = signal / (1 - signal)
        return snr.clamp(max=self._min_snr) / (snr if self._prediction == "epsilon" else snr + 1)
