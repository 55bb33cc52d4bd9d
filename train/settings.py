"""The settings of a run: composed from `conf/train.yaml`, checked here, passed on as plain values."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from live2diff.columns import COLUMNS
from live2diff.config import compose
from live2diff.errors import UsageError
from train.checks import check_pairs
from train.model_group import check_group
from train.toy_tasks import TASKS


@dataclass
class Lora:
    """What `trainer.lora` is when it is not null."""

    rank: int
    alpha: float


@dataclass
class Trainer:
    """One field per key of `conf/trainer/default.yaml`, where each is explained."""

    task: str
    trainable: list[str]
    mask: str
    depth: bool
    lora: Lora | None
    loss: str
    min_snr: float | None
    offset_noise: float
    updates: int
    batch: int
    accumulate: int
    effective_batch: int | None
    clip_grad: float | None
    ema: float | None
    precision: str
    gradient_checkpointing: bool
    compile: bool
    strategy: str
    accelerator: str
    devices: Any  # "auto" or a number
    save_every: int | None
    keep: int
    log_every: int
    log_samples: bool
    overfit: int
    profiler: str | None
    flops: bool


@dataclass
class Data:
    """One field per key of `conf/data/shards.yaml`."""

    path: str
    split: str
    frames: int
    stride: int
    size: int
    hflip: float
    caption_dropout: float
    columns: Any  # "auto", "none" or a list of names
    reader: str
    workers: int
    shuffle: int
    max_corrupt: float


@dataclass
class Validation:
    """One field per key of `conf/validation/default.yaml`."""

    every: int | None
    split: str
    clips: int
    timesteps: list[int]
    videos: int
    video_frames: int


@dataclass
class Optim:
    """One field per key of `conf/optim/*.yaml`."""

    kind: str
    lr: float
    betas: list[float]
    weight_decay: float


@dataclass
class Logger:
    """One field per key of `conf/logger/*.yaml`."""

    kind: str
    project: str = "live2diff"  # of W&B


@dataclass
class Train:
    """`conf/train.yaml`. `model` has a form of its own, see `train.model_group`."""

    seed: int
    name: str
    run_dir: str
    model: dict[str, Any]
    data: Data | None
    optim: Optim
    trainer: Trainer
    validation: Validation
    logger: Logger


Rule = tuple[Callable[[Any], bool], str]  # what holds, and how a person would say it


def _at_least(least: float) -> Rule:
    return lambda value: least <= value < math.inf, f"{least} or more"


def _one_of(*names: str | None) -> Rule:
    return lambda value: value in names, f"one of {', '.join(name or 'null' for name in names)}"


def _is_column_choice(value: Any) -> bool:
    return value in ("auto", "none") or (isinstance(value, list) and all(name in COLUMNS for name in value))


def _is_lora(value: Any) -> bool:
    return value is None or (value["rank"] > 0 and 0 < value["alpha"] < math.inf)


_FILLED: Rule = (lambda value: bool(value.strip()), "a name")
_ABOVE_ZERO: Rule = (lambda value: 0 < value < math.inf, "more than 0")
_PROBABILITY: Rule = (lambda value: 0 <= value <= 1, "0 to 1")

RULES: dict[str, Rule] = {
    "seed": (lambda value: 0 <= value < 2**32, "0 to 4294967295"),
    "name": _FILLED,
    "run_dir": _FILLED,
    "trainer.task": _one_of("diffusion", *TASKS),
    "trainer.trainable": (lambda names: all(isinstance(n, str) for n in names), "a list, as [motion,depth]"),
    "trainer.mask": _one_of("bidirectional", "causal", "warmup_causal"),
    "trainer.lora": (_is_lora, "null, or {rank: 1 or more, alpha: more than 0}"),
    "trainer.loss": _one_of("l1", "mse", "huber"),
    "trainer.min_snr": (lambda value: value is None or 0 < value < math.inf, "null or more than 0"),
    "trainer.offset_noise": _at_least(0),
    "trainer.updates": _at_least(1),
    "trainer.batch": _at_least(1),
    "trainer.accumulate": _at_least(1),
    "trainer.effective_batch": (lambda value: value is None or value >= 1, "null or 1 or more"),
    "trainer.clip_grad": (lambda value: value is None or 0 < value < math.inf, "null or more than 0"),
    "trainer.ema": (lambda value: value is None or 0 < value < 1, "null or more than 0 and below 1"),
    "trainer.precision": _one_of("32-true", "bf16-mixed", "16-mixed"),
    "trainer.strategy": _one_of("ddp", "fsdp"),
    "trainer.accelerator": _one_of("auto", "cpu", "cuda"),
    "trainer.devices": (lambda v: v == "auto" or (type(v) is int and v > 0), "auto or 1, 2 ..."),
    "trainer.save_every": (lambda value: value is None or value >= 1, "null or 1 or more"),
    "trainer.keep": _at_least(1),
    "trainer.log_every": _at_least(1),
    "trainer.overfit": _at_least(0),
    "trainer.profiler": _one_of(None, "simple", "pytorch"),
    "validation.every": (lambda value: value is None or value >= 1, "null or 1 or more"),
    "validation.clips": _at_least(0),
    "validation.timesteps": (lambda v: bool(v) and all(0 <= t < 1000 for t in v), "numbers from 0 to 999"),
    "validation.videos": _at_least(0),
    "validation.video_frames": _at_least(3),
    "optim.kind": _one_of("adam", "adamw"),
    "optim.lr": _ABOVE_ZERO,
    "optim.betas": (lambda v: len(v) == 2 and all(0 <= beta < 1 for beta in v), "two numbers, 0 to below 1"),
    "optim.weight_decay": _at_least(0),
    "data.path": _FILLED,
    "data.split": _FILLED,
    "data.frames": _at_least(1),
    "data.stride": _at_least(1),
    "data.size": _at_least(1),
    "data.hflip": _PROBABILITY,
    "data.caption_dropout": _PROBABILITY,
    "data.columns": (_is_column_choice, f"auto, none or a list of {', '.join(COLUMNS)}"),
    "data.reader": _one_of("pyav", "decord", "torchcodec"),
    "data.workers": _at_least(0),
    "data.shuffle": _at_least(1),
    "data.max_corrupt": (lambda value: 0 <= value < 1, "0 to below 1"),
    "logger.kind": _one_of("csv", "wandb"),
    "logger.project": _FILLED,
}  # fmt: skip


def load_config(overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Compose `conf/train.yaml` with `key=value` overrides and check it.

    Raises:
        UsageError: an unknown key (the nearest known one is named), a wrong type or a value out of range.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    composed = compose("train", overrides)
    try:
        typed = OmegaConf.merge(OmegaConf.structured(Train), composed)
        config: dict[str, Any] = OmegaConf.to_container(typed, throw_on_missing=True)  # pyright: ignore
    except OmegaConfBaseException as error:
        raise UsageError(_explain(error)) from error
    for key, (holds, expected) in RULES.items():
        group, _, name = key.rpartition(".")
        values = config[group] if group else config
        if values is not None and not holds(values[name]):
            raise UsageError(f"{key}={values[name]}: expected {expected}")
    check_group(config["model"])
    check_pairs(config)
    return config


def _explain(error: Any) -> str:
    """One line for a value that OmegaConf does not take, or a key that the dataclasses do not have."""
    key = error.full_key
    said = str(error.msg).splitlines()[0].rstrip(".")
    unknown = re.fullmatch(r"Key '(\w+)' not in '(\w+)'", said)
    if unknown:
        known = [field.name for field in fields(globals()[unknown[2]])]
        near = difflib.get_close_matches(unknown[1], known, n=1, cutoff=0.4)
        return f"unknown setting {key}" + (f"; did you mean {near[0]}?" if near else "")
    expected = f"; expected {RULES[key][1]}" if key in RULES else ""
    return f"{key}: {said}{expected}"
