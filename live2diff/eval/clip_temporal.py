"""CLIP temporal score: how alike CLIP finds adjacent frames, as the cosine of their embeddings times 100."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from live2diff.errors import CheckpointError, UsageError
from live2diff.eval.metric import Kind, Score, mean_of
from live2diff.eval.results import Signature

KIND = Kind("clip_temporal", "cosine of the CLIP embeddings of adjacent frames, times 100", "", "higher")

_BATCH = 16  # frames embedded at once


class Clip:
    """The picture side of a CLIP model, in float32, with its own preparation of pictures.

    Args:
        reference: a folder in transformers' layout, or the id of a model in the hub's local cache. Nothing is
            downloaded.

    Raises:
        UsageError: no model named.
        CheckpointError: it is not there, is no CLIP model or lacks weights.
    """

    def __init__(self, reference: str | None, device: torch.device):
        from transformers import CLIPImageProcessor, CLIPModel

        from live2diff.references import find
        from live2diff.weights import load_pretrained, weights_hash

        if reference is None:
            raise UsageError(
                "clip_temporal: needs clip_model=FOLDER, a CLIP model such as openai/clip-vit-base-patch16; "
                "nothing is downloaded"
            )
        folder = find(reference, "clip_model")
        options: dict[str, Any] = {"local_files_only": True}
        try:
            self._processor = CLIPImageProcessor.from_pretrained(folder, **options)
            both = load_pretrained(CLIPModel, folder, use_safetensors=True, dtype=torch.float32, **options)
        except CheckpointError:
            raise
        except Exception as error:  # the library raises a dozen kinds on folders it cannot read
            words = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"clip_model={reference}: is no CLIP model in safetensors that transformers loads ({words})"
            ) from error
        # The text side is left behind.
        parts = {"vision": both.vision_model, "projection": both.visual_projection}
        self._parts, self._device = nn.ModuleDict(parts).eval().to(device), device
        self.name = f"{folder.name} {weights_hash(self._parts)[:12]}"

    @torch.no_grad()
    def __call__(self, frames: list[np.ndarray]) -> torch.Tensor:
        """Embeddings of length 1 of uint8 RGB (H, W, 3) frames: float32 (N, D) on the CPU."""
        pixels = cast(Any, self._processor)(images=frames, return_tensors="pt")["pixel_values"]
        seen = self._parts["vision"](pixel_values=pixels.to(self._device)).pooler_output
        return F.normalize(self._parts["projection"](seen).float().cpu(), dim=-1)


class ClipTemporal:
    """The score of outputs; sources do not enter it."""

    kinds = (KIND,)

    def __init__(self, clip: Clip):
        self._clip = clip

    def signatures(self) -> dict[str, Signature]:
        return {
            KIND.name: {
                "version": 1,
                "model": self._clip.name,
                "pairs": "adjacent frames of the output",
                "range": "-100 to 100",
                "reduction": "mean over pairs, videos",
            }
        }

    def begin(self) -> _Measurement:
        return _Measurement(self._clip)


class _Measurement:
    def __init__(self, clip: Clip):
        self._clip = clip
        self._waiting: list[np.ndarray] = []
        self._last: torch.Tensor | None = None  # of the last frame that was embedded
        self._per_frame: list[float | None] = []

    def add(self, source: np.ndarray, pred: np.ndarray) -> None:
        self._waiting.append(pred)
        if len(self._waiting) == _BATCH:
            self._embed()

    def _embed(self) -> None:
        for embedding in self._clip(self._waiting) if self._waiting else ():
            alike = None if self._last is None else 100 * float(embedding.double() @ self._last.double())
            self._per_frame.append(alike)
            self._last = embedding
        self._waiting = []

    def scores(self) -> dict[str, Score]:
        self._embed()
        return {KIND.name: mean_of(self._per_frame, "fewer than 2 frames")}
