"""The noise levels of a pipelined stream: one denoising step of LCM sampling per row.

LCM (Luo et al. 2023, Alg. 3) alternates: predict x0 from the noisy latent, then noise it again to the
next, lower level. `diffusers.LCMScheduler` takes one timestep at a time; here the coefficients of all
rows are tabled, so that rows at different levels advance in one operation. The numbers are its own.
"""

from __future__ import annotations

import torch
from diffusers import LCMScheduler

from live2diff.settings import NoiseSchedule, check_steps

# LCM-LoRA is distilled on 50 of the 1000 timesteps; steps are indices into these.
ORIGINAL_STEPS = 50


class RowSchedule:
    """Coefficients of T rows, noisiest first; every tensor is float32 (T, 1, 1, 1) but `timesteps`, (T,).

    Args:
        steps: rising indices into the 50-step schedule; index i is timestep 999 - 20 i.
    """

    def __init__(self, noise: NoiseSchedule, steps: tuple[int, ...], device: torch.device | str = "cpu"):
        check_steps(steps)
        scheduler = LCMScheduler(**noise.scheduler_config(), original_inference_steps=ORIGINAL_STEPS)
        scheduler.set_timesteps(ORIGINAL_STEPS)
        timesteps = [int(scheduler.timesteps[i]) for i in steps]
        scalings = [scheduler.get_scalings_for_boundary_condition_discrete(t) for t in timesteps]
        signal = scheduler.alphas_cumprod[timesteps]

        def column(values: torch.Tensor) -> torch.Tensor:
            return values.float().reshape(-1, 1, 1, 1).to(device)

        self.rows = len(steps)
        self.predicts_v = noise.prediction == "v_prediction"
        self.timesteps = torch.tensor(timesteps, device=device)
        self.alpha = column(signal.sqrt())
        self.sigma = column((1 - signal).sqrt())
        self.c_skip = column(torch.tensor([float(skip) for skip, _ in scalings]))
        self.c_out = column(torch.tensor([float(out) for _, out in scalings]))

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, rows: slice) -> torch.Tensor:
        """Bring clean latents (N, C, h, w) to the levels of `rows`."""
        return self.alpha[rows] * clean + self.sigma[rows] * noise

    def denoise(self, noisy: torch.Tensor, predicted: torch.Tensor, rows: slice) -> torch.Tensor:
        """The consistency function: x0 of noisy latents (N, C, h, w) at the levels of `rows`.

        `predicted` is what the UNet says about them: eps, or v where the model predicts that.
        """
        if self.predicts_v:
            clean = self.alpha[rows] * noisy - self.sigma[rows] * predicted
        else:
            clean = (noisy - self.sigma[rows] * predicted) / self.alpha[rows]
        return self.c_out[rows] * clean + self.c_skip[rows] * noisy
