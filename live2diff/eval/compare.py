"""Compare two results: paired differences with intervals, and conditions that fail a pipeline."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from live2diff.errors import UsageError
from live2diff.eval.bootstrap import interval
from live2diff.eval.clips import printable
from live2diff.eval.results import Better, Figure, Results

FAILED = 6  # exit code when a --fail-if condition holds

_CONDITION = re.compile(
    r"\s*(?P<figure>\w+)\s*(?P<sign>[<>])\s*(?P<amount>[+-]\d+(\.\d*)?([eE][+-]?\d+)?)\s*(?P<percent>%?)\s*"
)


@dataclass(frozen=True)
class Change:
    """How one figure changed from A to B, over the videos that both have.

    Attributes:
        before, after: means over these videos; the figures' own where there are none (latency).
        low, high: 95 % bootstrap interval of the mean difference; None below two videos.
        unequal: keys of the signature that differ.
    """

    figure: str
    unit: str
    better: Better
    before: float
    after: float
    low: float | None
    high: float | None
    videos: int
    unequal: tuple[str, ...] = ()

    @property
    def difference(self) -> float:
        return self.after - self.before

    @property
    def percent(self) -> float | None:
        """Of `before`; None where that is 0."""
        return 100 * self.difference / abs(self.before) if self.before else None

    @property
    def verdict(self) -> str:
        """better, worse, no clear difference (0 lies in the interval), or not known (no interval)."""
        if self.low is None or self.high is None:
            return "not known"
        if self.low <= 0 <= self.high:
            return "no clear difference"
        return "better" if (self.difference < 0) == (self.better == "lower") else "worse"


@dataclass(frozen=True)
class Condition:
    """`warp_error>+5%`: a change of that much, of a figure or in per cent of it, or beyond."""

    text: str
    figure: str
    above: bool
    amount: float
    percent: bool

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Raises UsageError."""
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise UsageError(
                f"--fail-if {text!r}: write FIGURE>+AMOUNT or FIGURE<-AMOUNT, in per cent with %, such as "
                "warp_error>+5% or clip_temporal<-0.5"
            )
        return cls(
            text, match["figure"], match["sign"] == ">", float(match["amount"]), bool(match["percent"])
        )

    def holds(self, changes: Sequence[Change]) -> bool:
        """Whether the change is past the amount.

        Raises:
            UsageError: both results do not have the figure, or per cent of 0 is asked for.
        """
        change = next((change for change in changes if change.figure == self.figure), None)
        if change is None:
            known = ", ".join(each.figure for each in changes)
            raise UsageError(
                f"--fail-if {self.text!r}: both results must have {self.figure}; they have {known}"
            )
        found = change.percent if self.percent else change.difference
        if found is None:
            if change.difference == 0:
                return False
            raise UsageError(f"--fail-if {self.text!r}: {self.figure} was 0, leave out the %")
        return found > self.amount if self.above else found < self.amount


def left_out(a: Results, b: Results) -> tuple[list[str], list[str]]:
    """Names of the videos that only A has, and that only B has: no figure compares them."""
    before, after = ({video.name for video in results.videos} for results in (a, b))
    return sorted(before - after), sorted(after - before)


def compare(a: Results, b: Results, allow_unequal: bool = False) -> list[Change]:
    """The change of every figure that both have, in A's order.

    Args:
        allow_unequal: compare also figures whose signatures differ, and videos whose sources do.

    Raises:
        UsageError: no figure in common, no video in common, signatures that differ (the keys are named), or
            videos of one name and unequal sources.
    """
    shared = [name for name in a.figures if name in b.figures]
    if not shared:
        raise UsageError(
            f"nothing to compare: A has {', '.join(a.figures) or 'no figures'}, "
            f"B has {', '.join(b.figures) or 'no figures'}"
        )
    unequal = {name: differing(a.figures[name], b.figures[name]) for name in shared}
    if any(unequal.values()) and not allow_unequal:
        name, keys = next((name, keys) for name, keys in unequal.items() if keys)
        others = sum(bool(keys) for keys in unequal.values()) - 1
        more = f" and {others} more" if others else ""
        said = "; ".join(f"{key} is {_value(a, name, key)} and {_value(b, name, key)}" for key in keys)
        raise UsageError(
            f"{name}{more}: measured in two ways, so the numbers do not compare: {said}; "
            "--allow-unequal compares all the same"
        )
    other = _other_sources(a, b)
    if other and not allow_unequal:
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        raise UsageError(
            f"{printable(other[0])}{more}: A and B were measured against different source frames; "
            "--allow-unequal compares all the same"
        )
    for name in shared:
        if other and a.figures[name].videos:
            unequal[name].append("source")
    return [_change(name, a, b, tuple(unequal[name])) for name in shared]


def _other_sources(a: Results, b: Results) -> list[str]:
    """Names of the videos that both have, and that were measured against different sources."""
    before = {video.name: video.source_hash for video in a.videos}
    return [v.name for v in b.videos if before.get(v.name, v.source_hash) != v.source_hash]


def differing(a: Figure, b: Figure) -> list[str]:
    """The keys in which two signatures differ, in order."""
    keys = {**a.signature, **b.signature}
    return sorted(key for key in keys if a.signature.get(key) != b.signature.get(key))


def _change(name: str, a: Results, b: Results, unequal: tuple[str, ...]) -> Change:
    figure = a.figures[name]
    if figure.videos == 0:  # not over videos
        return Change(
            name, figure.unit, figure.better, figure.mean, b.figures[name].mean, None, None, 0, unequal
        )
    before = {video.name: video.values[name] for video in a.videos if name in video.values}
    after = {video.name: video.values[name] for video in b.videos if name in video.values}
    common = sorted(before.keys() & after.keys())
    if not common:
        raise UsageError(f"{name}: the results have no video in common")
    pairs = np.array([[before[video], after[video]] for video in common])
    low, high = interval(list(pairs[:, 1] - pairs[:, 0])) or (None, None)
    means = pairs.mean(axis=0)
    return Change(
        name,
        figure.unit,
        figure.better,
        float(means[0]),
        float(means[1]),
        low,
        high,
        len(common),
        unequal,
    )


def _value(results: Results, name: str, key: str) -> str:
    return str(results.figures[name].signature.get(key, "absent"))
