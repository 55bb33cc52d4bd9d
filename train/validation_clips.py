"""The clips that a run is validated on: which ones, which frames of them, and what is made of them once."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from live2diff.errors import DataError
from live2diff.images import cover
from train.columns import Parts
from train.data import collate
from train.encoding import Encoded
from train.members import Tar, one_line
from train.module import Diffusion
from train.noise import draw, sample_seed
from train.order import Place
from train.readers import find_reader
from train.samples import CorruptError, Samples
from train.shards import Shard

_SEED = 0  # not the run's: runs with other seeds can be compared


@dataclass(frozen=True)
class HeldClip:
    """A clip as the UNet meets it, on the CPU: `encoded`, and `noise` (T, C, F, h, w), one per timestep."""

    encoded: Encoded
    noise: torch.Tensor


@dataclass(frozen=True)
class Footage:
    """Consecutive frames of a clip, uint8 RGB (H, W, 3)."""

    key: str
    caption: str
    fps: Fraction
    frames: list[np.ndarray]


class ValidationClips:
    """Clips spread evenly over a split: the same ones for every run, however many processes share them.

    Of each, the same window is taken every time, not mirrored and with its caption. The next one in the split
    takes the place of a clip that cannot be read.

    Args:
        data: the `data` group of the configuration.
        shards: of the split.
        parts: what is read.
        wanted: how many clips; there may be fewer.
    """

    def __init__(self, data: Mapping[str, Any], shards: Sequence[Shard], parts: Parts, wanted: int):
        self._data = {**data, "hflip": 0.0, "caption_dropout": 0.0}
        self._shards = shards
        self._all = [Place(0, i, clip) for i, shard in enumerate(shards) for clip in range(shard.clips)]
        self._count = min(wanted, len(self._all))
        self._samples = Samples(self._data, shards, _SEED, parts)

    def __len__(self) -> int:
        return self._count

    def encode(self, number: int, timesteps: Sequence[int], module: Diffusion) -> HeldClip:
        """What the frozen nets of `module` make of a clip, and the noise that it is to be validated under.

        Raises:
            DataError: no clip of the split can be read.
        """
        sample, _ = self._read(number)
        batch = module.transfer_batch_to_device(collate([sample]), module.device, 0)
        seeds = [sample_seed(_SEED, timestep, sample["key"]) for timestep in timesteps]
        shape = module.encode.latent_shape(batch)
        _, noise, posterior = draw(seeds, shape, module.objective.timesteps, module.device)
        clean, depth, text = module.encode(batch, posterior[:1])
        encoded = Encoded(clean.cpu(), None if depth is None else depth.cpu(), text.cpu())
        return HeldClip(encoded, noise.cpu())

    def footage(self, number: int, most: int) -> Footage:
        """The first frames of a clip, `most` of them or all there are, cut to the size that is trained.

        Raises:
            DataError: they cannot be read.
        """
        sample, shard = self._read(number)
        key, side = sample["key"], self._data["size"]
        try:
            tar = Tar(shard.path)
            record = json.loads(tar.read(key, "json"))
            count = min(most, record["frames"])
            frames = find_reader(self._data["reader"])(tar.read(key, "mp4"), 0, count, 1)
            fps = Fraction(record["fps"]).limit_denominator(1001)
            return Footage(key, sample["caption"], fps, [cover(frame, (side, side)) for frame in frames])
        except Exception as error:  # a decoder may raise anything on damaged bytes
            raise DataError(f"{shard.path}: clip {key}: {one_line(error)}") from error

    def _read(self, number: int) -> tuple[dict[str, Any], Shard]:
        first = number * len(self._all) // self._count
        for place in [*self._all[first:], *self._all[:first]]:
            try:
                return self._samples[place], self._shards[place.shard]
            except CorruptError as error:
                print(f"left out of the validation: {error}", file=sys.stderr, flush=True)
        raise DataError(f"data.path={self._data['path']}: no clip of its validation split can be read")
