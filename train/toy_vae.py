"""The toy world's autoencoder, trained on rendered frames in all looks and on the depth maps of some."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D

from live2diff.depth import DepthPolicy, depth_image
from live2diff.model import vae as vae_io
from live2diff.model.video_model import VideoModel
from train.noise import sample_seed
from train.toy_frames import Pool, one_cycle, render_frames

_KL = 1e-6  # weight of the posterior's divergence from a standard normal: keeps latents in a sane range
_COLOUR = 10.0  # weight of the colour error, see `_colour`, at first
_HELD = 0.1  # share of it, and of the weight of latents that are colours, in the second half of the run
_SPREAD = (0.71, 0.28, 0.31)  # standard deviations of `_colour` over the toy world
_GRAIN = 0.3  # most noise on the latents, relative to each channel's own scale
_NARROW = -6.0  # log-variance the posterior starts with: at 0 its noise would drown the latents
_POOL = 768  # scenes; each gives one frame in every look


class ToyVae(lightning.LightningModule):
    """Trains `model.vae`; `finish` writes the whole model to RUN/model."""

    def __init__(self, model: VideoModel, optim: Mapping[str, Any], seed: int):
        super().__init__()
        self.model, self.optim, self.seed = model, optim, seed
        self.vae = model.vae.requires_grad_(True).train()
        _start_shallow(self.vae)

    def pool(self) -> Pool:
        """Images (N, 3, H, W): frames, and the depth of every twelfth."""
        frames = render_frames(_POOL, self.model.settings.size)
        # The autoencoder must also carry the depth maps that condition the UNet.
        depth = DepthPolicy("frame").normalise_clip(frames["inverse_depth"][::12, None], warmup=1)
        return {"image": torch.cat([frames["image"], depth_image(depth[:, 0])])}

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        index, images = batch["index"], batch["image"]
        # Seeded by the micro-step, on the CPU: a resumed run draws what an uninterrupted one would.
        source = torch.Generator().manual_seed(sample_seed(self.seed, 0, str(index)))
        # It is convolutional: a quarter teaches as much per pixel as the whole, and costs a quarter.
        top, left = index % 2, index // 2 % 2
        images = images.chunk(2, dim=-2)[top].chunk(2, dim=-1)[left]
        posterior = self.vae.encode(images).latent_dist
        latents = posterior.sample(source)
        # A denoiser's latents are never exact; a decoder that has met noise does not turn it into grain.
        strength = torch.rand(len(latents), 1, 1, 1, generator=source)
        scale = latents.detach().std(dim=(0, 2, 3), keepdim=True)
        noise = (strength * torch.randn(latents.shape, generator=source)).to(latents) * scale
        restored = self.vae.decode(latents + _GRAIN * noise).sample
        wanted = _colour(images)
        colour = F.mse_loss(_colour(restored), wanted)
        # Three latents start as the three colours, of unit variance. Left alone, an autoencoder of minutes
        # spends all four on brightness, and greens and purples are gone. Later they may carry edges, too.
        hold = max(_HELD, 1 - 2 * index / self.trainer.max_steps)
        anchor = F.mse_loss(posterior.mean[:, :3], wanted / wanted.new_tensor(_SPREAD).view(3, 1, 1))
        # A diffusion model adds as much noise to each latent: one that is small would drown.
        even = (posterior.mean.std(dim=(0, 2, 3)) - 1).square().mean()
        loss = F.l1_loss(restored, images) + _COLOUR * hold * colour + hold * anchor + even
        loss = loss + _KL * posterior.kl().mean()
        self.log("loss", loss.detach(), logger=False)
        return loss

    def configure_optimizers(self) -> Any:
        return one_cycle(self.vae.parameters(), self.optim, self.trainer.max_steps)

    def finish(self, run: Path) -> None:
        """Measure the latents' scale, as SD1.5's 0.18215 once was, and save the model."""
        self.model.to("cpu")
        self.vae.eval()
        frames = render_frames(32, self.model.settings.size)
        with torch.no_grad():
            std = float(vae_io.encode(self.vae, frames["image"]).std())
        scaling = round(1 / std, 4)
        self.vae.register_to_config(scaling_factor=scaling)
        self.model.settings = replace(self.model.settings, vae_scaling=scaling)
        self.model.provenance["toy_vae"] = {"scenes": _POOL, "updates": self.trainer.global_step}
        self.model.save(run / "model")


def _start_shallow(vae: Any) -> None:
    """Silence the residual branches at first. What is left is nearly linear and finds colours in seconds."""
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, ResnetBlock2D):
                module.conv2.weight.zero_()
                module.conv2.bias.zero_()
        half = vae.config.latent_channels  # the second half of the channels is the log-variance
        vae.quant_conv.weight[half:] *= 0.1
        vae.quant_conv.bias[half:] = _NARROW


def _colour(images: torch.Tensor) -> torch.Tensor:
    """Mean colour of 4 x 4 pixels as brightness and two opponent colours, all three of equal weight.

    Four latents a patch are few: on plain pixels, edges of brightness win and colours are lost.
    """
    red, green, blue = F.avg_pool2d(images, 4).unbind(1)
    return torch.stack([(red + green + blue) / 2, red - green, (red + green) / 2 - blue], dim=1)
