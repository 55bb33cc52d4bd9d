"""Columns: what the frozen nets make of a clip, computed once and kept beside the clips.

A column is a tar of arrays with the stem number and the key order of its clip shard. `data_prep` writes
it, training reads it instead of running the net.

    KEY.latents.npy       float16 (F, 2C, h, w)  the VAE's posterior, unscaled: means, then deviations
    KEY.depth.npy         uint16 (F, H, W)       raw inverse depth = value * scale + offset, not normalised
    KEY.depth_range.npy   float32 (F, 2)         scale and offset of each frame
    KEY.text.npy          float16 (S, D)         the text encoder's states of the caption

Latents and depth are of the square that training looks at (`images.square`): the latents of a crop are no
crop of latents. They also come mirrored (`latents_mirrored`, `depth_mirrored`, `depth_mirrored_range`),
since neither net makes of a mirrored picture exactly the mirror image of what it makes of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from live2diff.errors import UsageError

if TYPE_CHECKING:
    from live2diff.model.video_model import VideoModel

COLUMNS = ("latents", "depth", "text")

_LEVELS = 65535  # largest value of a stored depth
# What may be said beside an identity and is no part of it.
_NOT_COMPARED = ("model", "tools", "shards")


def member(name: str, mirrored: bool = False, of: str = "") -> str:
    """The extension of an array: `member("depth", True, "range")` is `depth_mirrored_range.npy`."""
    return "_".join(filter(None, (name, "mirrored" if mirrored else "", of))) + ".npy"


def identity(model: VideoModel, column: str, size: int, mirror: bool) -> dict[str, Any]:
    """What decides a column's values, as plain JSON values; `differences` compares two.

    Keys: `column`; `weights`, hash of the net's; `shape` and `dtype` of a row; for pictures `size`, side of
    the square in pixels, and `mirror`, whether mirrored arrays are there too; settings of the net.

    Raises:
        UsageError: a size that the VAE cannot take.
    """
    from live2diff.weights import weights_hash

    if column == "text":
        settings = model.settings.text
        return {
            "column": column,
            "weights": weights_hash(model.text),
            "tokens": _vocabulary_hash(model.text.tokenizer.get_vocab()),
            "clip_skip": settings.clip_skip,
            "shape": [settings.max_length, model.text.model.config.hidden_size],
            "dtype": "float16",
        }
    if column == "depth":
        return {
            "column": column,
            "weights": weights_hash(model.depth),
            # A net of convolutions takes any size: its weights do not tell which it is given.
            "image_size": model.depth.image_size,
            "size": size,
            "mirror": mirror,
            "shape": [size, size],
            "dtype": "uint16",
        }
    side, rest = divmod(size, model.downscale)
    if rest:
        raise UsageError(
            f"size={size}: this model's autoencoder needs a multiple of {model.downscale} pixels"
        )
    return {
        "column": column,
        "weights": weights_hash(model.vae),
        "size": size,
        "mirror": mirror,
        "shape": [2 * model.vae.config.latent_channels, side, side],
        "dtype": "float16",
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two identities, in words; empty when the values are the same."""
    keys = [key for key in {**before, **now} if key not in _NOT_COMPARED]
    return [
        f"{key} was {_short(before.get(key))}, now {_short(now.get(key))}"
        for key in keys
        if before.get(key) != now.get(key)
    ]


def quantise_depth(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Raw inverse depth float32 (F, H, W) -> uint16 (F, H, W) and float32 (F, 2), scale and offset per frame.

    The error is at most half a step: 1/131070 of the frame's range. Constant depth is exact.
    """
    raw = raw.astype(np.float32, copy=False)
    low, high = raw.min(axis=(1, 2)), raw.max(axis=(1, 2))
    scale = (high - low) / np.float32(_LEVELS)
    step = np.where(scale > 0, scale, 1)[:, None, None]
    values = np.rint((raw - low[:, None, None]) / step).clip(0, _LEVELS).astype(np.uint16)
    return values, np.stack([scale, low], axis=1)


def restore_depth(values: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """The inverse of `quantise_depth`, float32 (F, H, W)."""
    scale, offset = ranges[:, 0, None, None], ranges[:, 1, None, None]
    return values.astype(np.float32) * scale + offset


def _vocabulary_hash(vocabulary: Mapping[str, int]) -> str:
    import hashlib
    import json

    words = json.dumps(sorted(vocabulary.items(), key=lambda item: item[1]))
    return hashlib.sha256(words.encode()).hexdigest()


def _short(value: Any) -> str:
    """A hash by its first digits, anything else as it is."""
    return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)
