"""What changes while a stream runs, and when: another prompt, other LoRA strengths, a new start."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from live2diff.errors import UsageError
from live2diff.stream.engine import Memory, Stream
from live2diff.stream.still import SkipStill

_CUE = re.compile(r"(?:t=(?P<seconds>\d+(?:\.\d+)?)s?|frame=(?P<frame>\d+)):\s*(?P<what>.*\S)\s*", re.DOTALL)


@dataclass(frozen=True)
class Change:
    """One call of `Stream.change`, as data."""

    prompt: str | None = None
    blend: int = 0
    loras: Mapping[str, float] = field(default_factory=dict)
    memory: Memory = "keep"

    def apply(self, stream: Stream | SkipStill) -> list[np.ndarray]:
        """What `Stream.change` returns."""
        return stream.change(self.prompt, blend=self.blend, loras=self.loras, memory=self.memory)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Cue:
    """A change before the first frame shown at `seconds` or later, or before frame number `frame`, from 0."""

    change: Change
    seconds: Fraction | None = None
    frame: int | None = None

    def is_due(self, frame: int, seconds: Fraction) -> bool:
        return seconds >= self.seconds if self.seconds is not None else frame >= (self.frame or 0)


class Script:
    """Cues in the order they were given; each is played once."""

    def __init__(self, cues: Sequence[Cue] = ()):
        self._left = list(cues)

    def due(self, frame: int, seconds: Fraction) -> list[Change]:
        """The changes before this frame."""
        now = [cue for cue in self._left if cue.is_due(frame, seconds)]
        self._left = [cue for cue in self._left if cue not in now]
        return [cue.change for cue in now]

    @property
    def left(self) -> int:
        """Cues whose time has not come."""
        return len(self._left)


def prompt_cue(argument: str, blend: int, memory: Memory) -> Cue:
    """`t=3s: a winter street` or `frame=90: a winter street`. Raises UsageError."""
    if blend < 0 or (blend and memory != "keep"):
        raise UsageError(f"--blend {blend}: expected 0 or more, and only with --on-prompt keep")
    seconds, frame, words = _parse(argument, "--prompt-at", "t=3s: a winter street")
    return Cue(Change(prompt=words, blend=blend, memory=memory), seconds, frame)


def lora_cue(argument: str) -> Cue:
    """`t=3s: NAME=0.4`, several separated by commas. Raises UsageError."""
    seconds, frame, words = _parse(argument, "--lora-at", "t=3s: disney=0.4")
    loras = {}
    for part in words.split(","):
        name, _, text = part.rpartition("=")
        try:
            scale = float(text)
        except ValueError:
            scale = math.nan
        if not name.strip() or not math.isfinite(scale):
            raise UsageError(f"--lora-at {argument!r}: {part.strip()!r} is not NAME=SCALE, like disney=0.4")
        loras[name.strip()] = scale
    return Cue(Change(loras=loras), seconds, frame)


def _parse(argument: str, option: str, example: str) -> tuple[Fraction | None, int | None, str]:
    match = _CUE.fullmatch(argument.strip())
    if match is None:
        raise UsageError(
            f"{option} {argument!r}: expected {example!r} or {example.replace('t=3s', 'frame=90')!r}"
        )
    seconds, frame = match["seconds"], match["frame"]
    return (
        None if seconds is None else Fraction(seconds),
        None if frame is None else int(frame),
        match["what"],
    )
