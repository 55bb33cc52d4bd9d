"""What every metric is: something that sees two videos frame by frame and then says numbers.

Frames come one by one and are dropped as soon as they can be, so a video of any length fits in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from live2diff.eval.results import Better, Signature


@dataclass(frozen=True)
class Kind:
    """A number that a metric gives.

    Attributes:
        about: what it is, in one line.
        unit: "" for a pure number.
    """

    name: str
    about: str
    unit: str
    better: Better


@dataclass(frozen=True)
class Score:
    """One number of one video.

    Attributes:
        value: None where it is not defined for the video; `reason` then says why.
        per_frame: one number or None for every frame; see `live2diff.eval.results.VideoResult`.
    """

    value: float | None
    per_frame: list[float | None]
    reason: str = ""


class Measurement(Protocol):
    """One pair of videos being measured."""

    def add(self, source: np.ndarray, pred: np.ndarray) -> None:
        """The next frames, both uint8 RGB (H, W, 3) of one size."""
        ...

    def scores(self) -> dict[str, Score]:
        """By figure, after the last frame."""
        ...


class Metric(Protocol):
    """Measures pairs of videos."""

    @property
    def kinds(self) -> Sequence[Kind]:
        """The figures it gives."""
        ...

    def signatures(self) -> dict[str, Signature]:
        """By figure: what the number depends on that lies in the metric itself."""
        ...

    def begin(self) -> Measurement: ...


def mean_of(per_frame: Sequence[float | None], reason: str) -> Score:
    """The mean of what is there, as a video's score; `reason` where nothing is."""
    there = [value for value in per_frame if value is not None]
    if not there:
        return Score(None, list(per_frame), reason)
    return Score(float(np.mean(there)), list(per_frame))
