"""One training sample out of a clip: which frames, mirrored or not, with or without its caption."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from live2diff.columns import member, restore_depth
from live2diff.errors import DataError
from live2diff.images import square
from train.columns import Parts
from train.members import DamagedError, Tars, one_line
from train.noise import generator, sample_seed
from train.order import Place
from train.readers import find_reader
from train.shards import Shard

_MOST_TARS = 256  # open at a time; systems allow a process 1024 files


class CorruptError(Exception):
    """A clip that cannot be read. The message names shard, key and reason in one line."""


class Samples:
    """Reads the sample at a place.

    A sample is {"key", "caption", "seed"} and, as `parts` says, "video" float32 (3, F, S, S) in [-1, 1],
    "latents" float16 (F, 2C, h, w), "depth" raw float32 (F, S, S), "text" float16 (L, D); see
    `live2diff.columns`. `seed` determines the sample's random draws: see `train.noise`.

    Args:
        config: the `data` group of the configuration.
        shards: of the split.
        seed: of the run.
        parts: what is read.
    """

    def __init__(self, config: Mapping[str, Any], shards: Sequence[Shard], seed: int, parts: Parts):
        self.config, self.shards, self.seed, self.parts = config, shards, seed, parts
        self._reader = find_reader(config["reader"])
        # A block's shards, each with its columns.
        self._tars = Tars(min(_MOST_TARS, config["shuffle"] * (1 + len(parts.columns))))

    def __getitem__(self, place: Place) -> dict[str, Any]:
        """Read one sample.

        Raises:
            CorruptError: it cannot be read, now or ever.
            DataError: its shard cannot be read at present, or the settings do not suit the clip.
        """
        shard = self.shards[place.shard]
        key = f"number {place.clip}"
        try:
            key = self._key(place)
            return self._read(shard, key, place.epoch)
        except (DataError, MemoryError):
            raise
        except Exception as error:  # a decoder may raise anything on damaged bytes
            raise CorruptError(f"{shard.path}: clip {key}: {one_line(error)}") from error

    def _key(self, place: Place) -> str:
        shard = self.shards[place.shard]
        tar = self._tars[shard.path]
        keys = [key for key in tar.keys if key not in shard.passed_over] if shard.passed_over else tar.keys
        if place.clip >= len(keys):
            raise DamagedError(
                f"it is one of {shard.clips}, {len(keys)} are there ({tar.damage or 'no more'})"
            )
        return keys[place.clip]

    def _read(self, shard: Shard, key: str, epoch: int) -> dict[str, Any]:
        config, tar = self.config, self._tars[shard.path]
        seed = sample_seed(self.seed, epoch, key)
        rng = generator(seed)
        record = json.loads(tar.read(key, "json"))
        caption = tar.read(key, "txt").decode("utf-8").strip()
        length = record.get("frames") if isinstance(record, dict) else None
        if type(length) is not int:
            raise DamagedError("its .json has no whole number under the key frames")
        count, stride = config["frames"], config["stride"]
        span = (count - 1) * stride + 1
        if length < span:
            raise DataError(
                f"{shard.path}: clip {key}: {length} frames, but {count} at stride {stride} need {span}: "
                "lower data.stride or rebuild with longer clips"
            )
        start = int(rng.integers(length - span + 1))
        mirrored = bool(rng.random() < config["hflip"])
        if rng.random() < config["caption_dropout"]:
            caption = ""
        sample = {"key": key, "caption": caption, "seed": seed}
        if self.parts.frames:
            frames = self._reader(tar.read(key, "mp4"), start, count, stride)
            sample["video"] = square(frames, config["size"], mirrored)
        rows = range(start, start + span, stride)
        return sample | {name: self._column(shard, key, name, rows, mirrored) for name in self.parts.columns}

    def _column(self, shard: Shard, key: str, name: str, rows: range, mirrored: bool) -> torch.Tensor:
        tar, shape = self._tars[shard.column(name)], self.parts.columns[name]
        if name == "text":
            values = tar.rows(key, member(name), None, shape[1:], "float16")
            if len(values) != shape[0]:
                raise DamagedError(f"its .text.npy has {len(values)} rows instead of {shape[0]}")
        elif name == "depth":
            stored = tar.rows(key, member(name, mirrored), rows, shape, "uint16")
            values = restore_depth(
                stored, tar.rows(key, member(name, mirrored, "range"), rows, (2,), "float32")
            )
        else:
            values = tar.rows(key, member(name, mirrored), rows, shape, "float16")
        if not np.isfinite(values).all():
            raise DamagedError(f"its {name} hold values that are not finite")
        return torch.from_numpy(values.copy() if not values.flags.writeable else values)
