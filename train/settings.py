"""The settings of a run: composed from `conf/train.yaml`, checked here, passed on as plain values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from live2diff.columns import COLUMNS
from live2diff.config import compose
from live2diff.errors import UsageError


@dataclass
class Trainer:
    """One field per key of `conf/trainer/default.yaml`, where each is explained."""

    task: str
    trainable: list[str]
    mask: str
    depth: bool
    loss: str
    updates: int
    batch: int
    accumulate: int
    clip_grad: float | None
    ema: float | None
    precision: str
    gradient_checkpointing: bool
    accelerator: str
    devices: Any  # "auto" or a number
    save_every: int
    keep: int
    log_every: int
    log_samples: bool


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
class Optim:
    """One field per key of `conf/optim/*.yaml`."""

    kind: str
    lr: float
    betas: list[float]
    weight_decay: float


@dataclass
class Train:
    """`conf/train.yaml`. `model` is checked by `live2diff.model.build`, which reads it."""

    seed: int
    name: str
    run_dir: str
    model: dict[str, Any]
    data: Data | None
    optim: Optim
    trainer: Trainer
    logger: dict[str, Any]


Rule = tuple[Callable[[Any], bool], str]  # what holds, and how a person would say it


def _at_least(least: float) -> Rule:
    return lambda value: least <= value < math.inf, f"{least} or more"


def _one_of(*names: str) -> Rule:
    return lambda value: value in names, f"one of {', '.join(names)}"


def _is_column_choice(value: Any) -> bool:
    return value in ("auto", "none") or (isinstance(value, list) and all(name in COLUMNS for name in value))


_ABOVE_ZERO: Rule = (lambda value: 0 < value < math.inf, "more than 0")
_PROBABILITY: Rule = (lambda value: 0 <= value <= 1, "0 to 1")

RULES: dict[str, Rule] = {
    "seed": _at_least(0),
    "trainer.task": _one_of("diffusion", "toy_parts"),
    "trainer.mask": _one_of("bidirectional", "causal", "warmup_causal"),
    "trainer.loss": _one_of("l1", "mse"),
    "trainer.updates": _at_least(1),
    "trainer.batch": _at_least(1),
    "trainer.accumulate": _at_least(1),
    "trainer.clip_grad": (lambda value: value is None or 0 < value < math.inf, "null or more than 0"),
    "trainer.ema": (lambda value: value is None or 0 < value < 1, "null or more than 0 and below 1"),
    "trainer.precision": _one_of("32-true", "bf16-mixed", "16-mixed"),
    "trainer.accelerator": _one_of("auto", "cpu", "cuda"),
    "trainer.devices": (lambda v: v == "auto" or (type(v) is int and v > 0), "auto or 1, 2 ..."),
    "trainer.save_every": _at_least(1),
    "trainer.keep": _at_least(1),
    "trainer.log_every": _at_least(1),
    "optim.kind": _one_of("adam", "adamw"),
    "optim.lr": _ABOVE_ZERO,
    "optim.betas": (lambda v: len(v) == 2 and all(0 <= beta < 1 for beta in v), "two numbers, 0 to below 1"),
    "optim.weight_decay": _at_least(0),
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
    except OmegaConfBaseException as error:
        raise UsageError(f"{error.full_key}: {str(error.msg).splitlines()[0]}") from error
    config: dict[str, Any] = OmegaConf.to_container(typed)  # pyright: ignore[reportAssignmentType]
    for key, (holds, expected) in RULES.items():
        group, _, name = key.rpartition(".")
        values = config[group] if group else config
        if values is not None and not holds(values[name]):
            raise UsageError(f"{key}={values[name]}: expected {expected}")
    if config["data"] is None and config["trainer"]["task"] == "diffusion":
        raise UsageError("data=null: trainer.task=diffusion needs clips; give data=shards data.path=DATASET")
    return config
