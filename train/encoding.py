"""Batches to what the UNet is trained on: latents, depth condition and text states.

Each comes from a column of the dataset where the batch has it, else from the net that makes such columns: the
same numbers but for the columns' half precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from live2diff.model.video_model import VideoModel


class Encoded(NamedTuple):
    """`clean` latents (B, C, F, h, w), the latents of their `depth` or None, `text` states (B, S, D)."""

    clean: torch.Tensor
    depth: torch.Tensor | None
    text: torch.Tensor


class Encoder:
    """Encodes batches of `train.data.Clips` with a model's frozen nets.

    Args:
        model: the model in training.
        depth: whether it is conditioned on depth.
    """

    def __init__(self, model: VideoModel, depth: bool):
        self._model, self._depth = model, depth
        self._empty: torch.Tensor | None = None  # states of the empty caption: one batch in ten has it

    def latent_shape(self, batch: Mapping[str, Any]) -> tuple[int, int, int, int]:
        """(C, F, h, w) of a sample's latents, known before they are there: their noise is drawn first."""
        if "latents" in batch:
            _, frames, channels, height, width = batch["latents"].shape
            return channels // 2, frames, height, width
        _, _, frames, height, width = batch["video"].shape
        scale = self._model.downscale
        return self._model.vae.config.latent_channels, frames, height // scale, width // scale

    @torch.no_grad()
    def __call__(self, batch: Mapping[str, Any], noise: torch.Tensor) -> Encoded:
        """Encode a batch; `noise`, of the latents' shape (B, C, F, h, w), draws from the VAE's posterior."""
        return Encoded(self._clean(batch, noise), self._condition(batch), self._text(batch))

    def _clean(self, batch: Mapping[str, Any], noise: torch.Tensor) -> torch.Tensor:
        if "latents" in batch:
            mean, std = batch["latents"].to(noise).transpose(1, 2).chunk(2, dim=1)
        else:
            mean, std = self._model.posterior(batch["video"])
        return self._model.sample(mean, std, noise).float()

    def _condition(self, batch: Mapping[str, Any]) -> torch.Tensor | None:
        if not self._depth:
            return None
        raw = batch["depth"] if "depth" in batch else self._model.estimate_depth(batch["video"])
        return self._model.depth_condition(raw)

    def _text(self, batch: Mapping[str, Any]) -> torch.Tensor:
        captions = batch["caption"]
        if "text" not in batch:
            return self._model.text(captions)
        states = batch["text"].float()
        # A caption that was dropped still has its states in the column.
        dropped = [place for place, caption in enumerate(captions) if not caption]
        if dropped:
            if self._empty is None:
                self._empty = self._model.text([""])
            states[dropped] = self._empty.to(states)
        return states
