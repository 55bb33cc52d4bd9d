"""The settings of a build: composed from `conf/prep.yaml`, checked here, passed on as plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from live2diff.config import compose
from live2diff.errors import UsageError

# Keys that say how a build runs, not what it makes: left out of the hash and of the comparison on a rerun.
RUN_KEYS = ("workers", "timeout_s", "memory_mb")


@dataclass(frozen=True)
class PrepConfig:
    """One field per key of `conf/prep/default.yaml`, where each is explained."""

    fps: float | None
    size: int
    min_size: int
    clip_frames: int
    stride: int
    max_seconds: float
    crf: int
    cut_ratio: float
    cut_change: float
    trim: int
    sources_per_shard: int
    val_fraction: float
    workers: int | None
    timeout_s: float
    memory_mb: int

    @property
    def min_frames(self) -> int:
        """Fewest frames of a clip: room for one training sample."""
        return (self.clip_frames - 1) * self.stride + 1

    def content(self) -> dict[str, Any]:
        """The keys that decide what the dataset contains."""
        return {key: value for key, value in asdict(self).items() if key not in RUN_KEYS}

    def hash(self) -> str:
        """Twelve hex digits that identify `content()`."""
        return hashlib.sha1(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()[:12]


def load_config(overrides: Sequence[str] = ()) -> PrepConfig:
    """Compose `conf/prep.yaml` with `key=value` overrides and check it.

    Raises:
        UsageError: an unknown key (the nearest known one is named), a wrong type or a value out of range.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    composed = compose("prep", overrides)
    try:
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(PrepConfig), composed))
    except OmegaConfBaseException as error:
        raise UsageError(f"{error.full_key}: {str(error.msg).splitlines()[0]}") from error
    assert isinstance(config, PrepConfig)
    _check(config)
    return config


def _check(config: PrepConfig) -> None:
    rules = {
        "fps": config.fps is None or 0 < config.fps <= 240,
        "size": config.size >= 16 and config.size % 2 == 0,
        "min_size": config.min_size >= 1,
        "clip_frames": config.clip_frames >= 1,
        "stride": config.stride >= 1,
        "max_seconds": config.max_seconds > 0,
        "crf": 0 <= config.crf <= 51,
        "cut_ratio": config.cut_ratio > 0,
        "cut_change": config.cut_change >= 0,
        "trim": config.trim >= 0,
        "sources_per_shard": config.sources_per_shard >= 1,
        "val_fraction": 0 <= config.val_fraction < 1,
        "workers": config.workers is None or config.workers >= 1,
        "timeout_s": config.timeout_s > 0,
        "memory_mb": config.memory_mb >= 256,
    }
    for key, holds in rules.items():
        if not holds:
            raise UsageError(f"{key}={getattr(config, key)} is out of range; see conf/prep/default.yaml")
