"""The settings of an ablation: composed from `conf/ablate.yaml`, checked here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from live2diff.config import compose
from live2diff.errors import UsageError
from live2diff.settings import check_steps

STAGE2 = 2  # updates of stage 2 for one of stage 1: the paper's 6000 / 3000

# The least that a value may be, and why.
_LEAST = {
    "seeds": (1, ""),
    "updates": (1, ""),
    "clips": (1, ""),
    "seconds": (2, ": a training sample is 16 frames, 8 per second"),
    "scenes": (1, ""),
    "frames": (3, ": flicker is measured on three in a row"),
    "timed_scenes": (1, ""),
}


@dataclass(frozen=True)
class AblateSettings:
    """One field per key of `conf/ablate/default.yaml`, where each is explained."""

    seeds: int
    updates: int
    stage2_updates: int
    clips: int
    seconds: int
    scenes: int
    frames: int
    steps: tuple[int, ...]
    timed_scenes: int

    @classmethod
    def of(cls, words: Sequence[str]) -> AblateSettings:
        """From `key=value` words. Raises UsageError: an unknown key, or a value that cannot be."""
        from omegaconf import OmegaConf

        values: Any = OmegaConf.to_container(compose("ablate", words))
        for key, (least, why) in _LEAST.items():
            _check_count(key, values[key], least, why)
        if values["stage2_updates"] is None:
            values["stage2_updates"] = STAGE2 * values["updates"]
        _check_count("stage2_updates", values["stage2_updates"], 1)
        steps = values["steps"]
        if not isinstance(steps, list) or not all(type(step) is int for step in steps):
            raise UsageError(f"steps={steps}: expected a list of indices, such as [25,37]")
        check_steps(tuple(steps))
        return cls(**{**values, "steps": tuple(steps)})

    def fixed(self) -> dict[str, Any]:
        """What all tables and reruns in one folder share, as JSON values: all but seeds and updates."""
        values = {**asdict(self), "steps": list(self.steps)}
        return {key: value for key, value in values.items() if key not in _FREE}


_FREE = ("seeds", "updates", "stage2_updates")


def _check_count(key: str, value: Any, least: int, why: str = "") -> None:
    if type(value) is not int or value < least:
        raise UsageError(f"{key}={value}: expected a whole number, {least} or more{why}")
