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
from torch.utils.data import DataLoader, IterableDataset

from live2diff import toy
from live2diff.depth import DepthPolicy, depth_image
from live2diff.images import to_tensor
from live2diff.model import vae as vae_io
from live2diff.model.video_model import VideoModel

# Weight of the posterior's divergence from a standard normal: enough to keep latents in a sane range.
_KL = 1e-6
_POOL = 512  # scenes; each gives one frame in every look
_SECONDS = 8.0  # frames are taken from the first seconds of a scene


class ToyParts(lightning.LightningModule):
    """Trains `model.vae` and `model.depth`; `finish` writes the whole model to RUN/model."""

    def __init__(self, model: VideoModel, optim: Mapping[str, Any]):
        super().__init__()
        self.model, self.optim = model, optim
        self.vae = model.vae.requires_grad_(True).train()
        self.depth = model.depth.requires_grad_(True).train()

    def training_step(self, batch: dict[str, torch.Tensor], index: int) -> torch.Tensor:
        error = F.l1_loss(self.depth(batch["image"]), batch["inverse_depth"])
        # The autoencoder must also carry the depth maps that condition the UNet.
        depth = DepthPolicy("frame").normalise_clip(batch["inverse_depth"][:, None], warmup=1)
        images = torch.cat([batch["image"], depth_image(depth[::4, 0])])
        # It is convolutional: a quarter teaches as much per pixel as the whole, and costs a quarter.
        top, left = index % 2, index // 2 % 2
        images = images.chunk(2, dim=-2)[top].chunk(2, dim=-1)[left]
        posterior = self.vae.encode(images).latent_dist
        restored = self.vae.decode(posterior.sample()).sample
        loss = F.l1_loss(restored, images) + _KL * posterior.kl().mean() + error
        self.log("loss", loss, logger=False)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        parameters = [*self.vae.parameters(), *self.depth.parameters()]
        return torch.optim.Adam(parameters, lr=self.optim["lr"], betas=tuple(self.optim["betas"]))

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


class ToyFrames(lightning.LightningDataModule):
    """Random batches from a pool of rendered frames."""

    def __init__(self, trainer: Mapping[str, Any], seed: int, size: tuple[int, int] = (64, 64)):
        super().__init__()
        self.run, self.seed, self.size = trainer, seed, size

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        batches = _Batches(
            self.run["batch"], self.run["updates"], self.trainer.global_step, self.seed, self.size
        )
        return DataLoader(batches, batch_size=None)


class _Batches(IterableDataset):
    def __init__(self, batch: int, updates: int, start: int, seed: int, size: tuple[int, int]):
        self.batch, self.updates, self.start, self.seed, self.size = batch, updates, start, seed, size

    def __len__(self) -> int:
        return self.updates

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        first = toy.SPLITS["train"]
        pool = _render(range(first, first + _POOL), self.size)
        for update in range(self.start, self.updates):
            rng = np.random.default_rng([self.seed, update])
            chosen = torch.from_numpy(rng.choice(len(pool["image"]), self.batch, replace=False))
            yield {name: values[chosen] for name, values in pool.items()}


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
