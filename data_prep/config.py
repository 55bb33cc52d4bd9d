"""The settings of a build: composed from `conf/prep.yaml`, checked here, passed on as plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from live2diff.columns import COLUMNS
from live2diff.config import compose
from live2diff.errors import UsageError

# Keys that say how a build runs, not what it makes: left out of the hash and of the comparison on a rerun.
RUN_KEYS = (
    "workers",
    "stall_s",
    "timeout_s",
    "memory_mb",
    "max_copy_mb",
    "captioner_device",
    "columns",
    "column_model",
    "column_size",
    "column_mirror",
    "column_device",
)
FILTER_KEYS = ("min_motion", "min_brightness", "min_contrast", "max_letterbox", "max_duplicate_distance")


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
    min_motion: float | None
    min_brightness: float | None
    min_contrast: float | None
    max_letterbox: float | None
    max_duplicate_distance: int | None
    path_column: str
    caption_column: str
    captioner: str | None
    captioner_prompt: str | None
    sources_per_shard: int
    val_fraction: float
    workers: int | None
    stall_s: float
    timeout_s: float | None
    memory_mb: int
    max_copy_mb: int
    captioner_device: str
    columns: list[str]
    column_model: str | None
    column_size: int | None
    column_mirror: bool
    column_device: str

    @property
    def min_frames(self) -> int:
        """Fewest frames of a clip: room for one training sample."""
        return (self.clip_frames - 1) * self.stride + 1

    def content(self) -> dict[str, Any]:
        """The keys that decide what the dataset contains."""
        return {key: value for key, value in asdict(self).items() if key not in RUN_KEYS}

    def filters(self) -> dict[str, float | None]:
        """The thresholds by which clips are dropped; None: not by this one."""
        return {key: getattr(self, key) for key in FILTER_KEYS}

    def hash(self) -> str:
        """Twelve hex digits that identify `content()`."""
        return hashlib.sha1(json.dumps(self.content(), sort_keys=True).encode()).hexdigest()[:12]


def load_config(overrides: Sequence[str] = ()) -> PrepConfig:
    """Compose `conf/prep.yaml` with `key=value` overrides and check it.

    Raises:
        UsageError: an unknown key (the nearest known one is named), a wrong type or a value out of range.
        CheckpointError, SetupError: columns are wanted of a model or on a device that is not there.
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
        "max_duplicate_distance": (
            config.max_duplicate_distance is None or 0 <= config.max_duplicate_distance <= 192
        ),
        "sources_per_shard": config.sources_per_shard >= 1,
        "val_fraction": 0 <= config.val_fraction < 1,
        "workers": config.workers is None or config.workers >= 1,
        "min_motion": config.min_motion is None or config.min_motion >= 0,
        "min_brightness": config.min_brightness is None or 0 <= config.min_brightness <= 1,
        "min_contrast": config.min_contrast is None or 0 <= config.min_contrast <= 1,
        "max_letterbox": config.max_letterbox is None or 0 <= config.max_letterbox <= 1,
        "stall_s": config.stall_s > 0,
        "timeout_s": config.timeout_s is None or config.timeout_s > 0,
        "memory_mb": config.memory_mb >= 256,
        "max_copy_mb": config.max_copy_mb >= 1,
        "columns": set(config.columns) <= set(COLUMNS),
        "column_size": config.column_size is None or config.column_size >= 8,
    }
    for key, holds in rules.items():
        if not holds:
            raise UsageError(f"{key}={getattr(config, key)} is out of range; see conf/prep/default.yaml")
    if config.columns:
        _check_columns(config)


def _check_columns(config: PrepConfig) -> None:
    """Now, not after hours of decoding."""
    if config.column_model is None:
        raise UsageError(
            f"columns={config.columns}: say by which model, column_model=EXPORT or column_model=RUN"
        )
    from live2diff.devices import find_device  # with torch
    from live2diff.model.build import locate

    locate(config.column_model)
    find_device(config.column_device, "column_device")
