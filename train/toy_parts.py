"""The toy world's stand-ins for what others download: the tiny model's autoencoder and its depth net.

Both learn from the same rendered frames, in both looks, with their exact depth. They share no parameter,
so one optimiser on the sum of their losses trains each as if alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from torch.utils.data import DataLoader, IterableDataset

from live2diff import toy
from live2diff.depth import DepthPolicy, depth_image
from live2diff.images import to_tensor
from live2diff.model import vae as vae_io
from live2diff.model.video_model import VideoModel
from train.noise import sample_seed
from train.throughput import TimedLoader

_KL = 1e-6  # weight of the posterior's divergence from a standard normal: keeps latents in a sane range
_COLOUR = 10.0  # weight of the colour error, see `_colour`
_GRAIN = 0.4  # most noise on the latents, relative to their own scale
_NARROW = -6.0  # log-variance the posterior starts with: at 0 its noise would drown the latents
_DEPTH_SCALE = 5.0  # inverse depth is about 0.2 in the toy world; near 1 the net's final ReLU stays alive
_POOL = 512  # scenes; each gives one frame in every look
_SECONDS = 8.0  # frames are taken from the first seconds of a scene


class ToyParts(lightning.LightningModule):
    """Trains `model.vae` and `model.depth`; `finish` writes the whole model to RUN/model."""

    def __init__(self, model: VideoModel, optim: Mapping[str, Any], seed: int):
        super().__init__()
        self.model, self.optim, self.seed = model, optim, seed
        self.vae = model.vae.requires_grad_(True).train()
        self.depth = model.depth.requires_grad_(True).train()
        _start_shallow(self.vae)

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        index = batch["index"]
        # Seeded by the micro-step, on the CPU: a resumed run draws what an uninterrupted one would.
        source = torch.Generator().manual_seed(sample_seed(self.seed, 0, str(index)))
        # The autoencoder must also carry the depth maps that condition the UNet.
        depth = DepthPolicy("frame").normalise_clip(batch["inverse_depth"][:, None], warmup=1)
        images = torch.cat([batch["image"], depth_image(depth[::4, 0])])
        # It is convolutional: a quarter teaches as much per pixel as the whole, and costs a quarter.
        top, left = index % 2, index // 2 % 2
        images = images.chunk(2, dim=-2)[top].chunk(2, dim=-1)[left]
        posterior = self.vae.encode(images).latent_dist
        latents = posterior.sample(source)
        # A denoiser's latents are never exact; a decoder that has met noise does not turn it into grain.
        strength = torch.rand(len(latents), 1, 1, 1, generator=source)
        noise = (strength * torch.randn(latents.shape, generator=source)).to(latents) * latents.detach().std()
        restored = self.vae.decode(latents + _GRAIN * noise).sample
        colour = F.mse_loss(_colour(restored), _colour(images))
        loss = F.l1_loss(restored, images) + _COLOUR * colour + _KL * posterior.kl().mean()
        if index % 2 == 0:  # the depth net learns in half the time
            loss = loss + F.l1_loss(self.depth(batch["image"]), _DEPTH_SCALE * batch["inverse_depth"])
            self.log("loss", loss, logger=False)
        return loss

    def configure_optimizers(self) -> Any:
        parameters = [*self.vae.parameters(), *self.depth.parameters()]
        optimiser = torch.optim.Adam(parameters, lr=self.optim["lr"], betas=tuple(self.optim["betas"]))
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, self.optim["lr"], total_steps=self.trainer.max_steps, pct_start=0.1
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def finish(self, run: Path) -> None:
        """Measure the latents' scale, as SD1.5's 0.18215 once was, and save the model."""
        self.model.to("cpu")
        self.vae.eval()
        frames = _render(range(toy.SPLITS["train"], toy.SPLITS["train"] + 32), self.model.settings.size)
        with torch.no_grad():
            std = float(vae_io.encode(self.vae, frames["image"]).std())
        scaling = round(1 / std, 4)
        self.vae.register_to_config(scaling_factor=scaling)
        self.model.settings = replace(self.model.settings, vae_scaling=scaling)
        self.model.provenance["toy_parts"] = {"scenes": _POOL, "updates": self.trainer.global_step}
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


class ToyFrames(lightning.LightningDataModule):
    """Random batches from a pool of rendered frames."""

    def __init__(self, trainer: Mapping[str, Any], seed: int, size: tuple[int, int] = (64, 64)):
        super().__init__()
        self.run, self.seed, self.size = trainer, seed, size

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        accumulate = self.run["accumulate"]
        steps = range(self.trainer.global_step * accumulate, self.run["updates"] * accumulate)
        batches = _Batches(self.run["batch"], steps, self.seed, self.size)
        return TimedLoader(batches, batch_size=None)


class _Batches(IterableDataset):
    def __init__(self, batch: int, steps: range, seed: int, size: tuple[int, int]):
        self.batch, self.steps, self.seed, self.size = batch, steps, seed, size

    def __len__(self) -> int:
        return self.steps.stop

    def __iter__(self) -> Iterator[dict[str, Any]]:
        first = toy.SPLITS["train"]
        pool = _render(range(first, first + _POOL), self.size)
        for index in self.steps:
            rng = np.random.default_rng([self.seed, index])
            chosen = torch.from_numpy(rng.choice(len(pool["image"]), self.batch, replace=False))
            yield {"index": index, **{name: values[chosen] for name, values in pool.items()}}


def _render(scenes: range, size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """One frame of every scene in every look: images (N, 3, H, W), inverse depth (N, H, W)."""
    images, depths = [], []
    for scene in scenes:
        time = np.random.default_rng(scene).uniform(0, _SECONDS, 1)
        for look in toy.LOOKS:
            rgb, depth = toy.frames(scene, time, size, look)
            images.append(to_tensor(rgb)[:, 0])
            depths.append(torch.from_numpy(depth[0]))
    return {"image": torch.stack(images), "inverse_depth": torch.stack(depths)}
