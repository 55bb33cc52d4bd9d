"""The settings of an evaluation: composed from `conf/eval.yaml`, checked here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from live2diff.config import compose
from live2diff.errors import UsageError
from live2diff.eval.captions import POSITIONS, Position
from live2diff.eval.flow import FLOWS
from live2diff.eval.pairs import Length, Rule
from live2diff.eval.translate import Outputs
from live2diff.stream.engine import Noise
from live2diff.stream.fit import Fit

_CHOICES = {
    "flow": FLOWS,
    "fit": ("crop", "pad", "stretch"),
    "length": ("equal", "shortest"),
    "trigger_position": POSITIONS,
    "outputs": ("mp4", "png"),
}
_COUNTS = ("latency_frames", "frames", "videos")
_SIZES = ("size", "latency_size")


@dataclass(frozen=True)
class EvalSettings:
    """One field per key of `conf/eval/default.yaml`, where each is explained."""

    metrics: tuple[str, ...]
    flow: str
    raft_weights: str | None
    clip_model: str | None
    depth_model: str | None
    latency_frames: int
    latency_size: tuple[int, int]
    dataset: str | None
    subfolder: str | None
    split: str
    videos: int | None
    size: tuple[int, int] | None
    fit: Fit
    length: Length
    frames: int | None
    captions: str | None
    trigger: str
    trigger_position: Position
    steps: tuple[int, ...] | None
    strength: float | None
    seed: int
    noise: Noise
    loras: tuple[str, ...]
    dtype: str
    outputs: Outputs
    device: str

    @property
    def rule(self) -> Rule:
        return Rule(self.size, self.fit, self.length, self.frames)

    @classmethod
    def of(cls, words: Sequence[str]) -> EvalSettings:
        """From `key=value` words. Raises UsageError: an unknown key, or a value that cannot be."""
        from omegaconf import OmegaConf

        values: Any = OmegaConf.to_container(compose("eval", words))
        for key in ("metrics", "loras", "steps", *_SIZES):
            if isinstance(values[key], list):
                values[key] = tuple(values[key])
        _check(values)
        return cls(**values)


def _check(values: dict[str, Any]) -> None:
    for key, known in _CHOICES.items():
        if values[key] not in known:
            raise UsageError(f"{key}={values[key]}: expected {' or '.join(known)}")
    for key in _COUNTS:
        if values[key] is not None and not _is_count(values[key]):
            raise UsageError(f"{key}={values[key]}: expected a whole number above 0")
    for key in _SIZES:
        size = values[key]
        if size is not None and not (
            isinstance(size, tuple) and len(size) == 2 and all(map(_is_count, size))
        ):
            raise UsageError(f"{key}={size}: expected [width,height] in pixels")
    for key in ("metrics", "loras"):
        if not isinstance(values[key], tuple) or not all(isinstance(word, str) for word in values[key]):
            raise UsageError(f"{key}={values[key]}: expected a list, such as [{key[:-1]}]")
    steps = values["steps"]
    if steps is not None and not (isinstance(steps, tuple) and all(type(step) is int for step in steps)):
        raise UsageError(f"steps={steps}: expected a list of indices, such as [30,40]")
    for key in ("raft_weights", "clip_model", "depth_model", "dataset", "subfolder", "captions"):
        if values[key] is not None and not isinstance(values[key], str):
            raise UsageError(f"{key}={values[key]}: expected a text; put it in quotes")
    for key in ("split", "trigger", "device", "dtype", "noise"):
        if not isinstance(values[key], str):
            raise UsageError(f"{key}={values[key]}: expected a text; put it in quotes")
    if type(values["seed"]) is not int or not isinstance(values["strength"], int | float | None):
        raise UsageError(f"seed={values['seed']}, strength={values['strength']}: expected numbers")


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0
