"""A metric over the frames of one video, as a line no taller than a word."""

from __future__ import annotations

import math
from collections.abc import Sequence

from live2diff.eval.results import Better
from live2diff.html import Html, element

_HEIGHT = 40.0
_MARGIN = 4.0  # above and below the line, so that it is seen whole
_POINTS = 400  # at most; of a longer video the worst value of every group of frames is drawn


def known(values: Sequence[float | None]) -> dict[int, float]:
    """The values that are finite numbers, by frame."""
    return {at: value for at, value in enumerate(values) if value is not None and math.isfinite(value)}


def worst_at(values: Sequence[float | None], better: Better) -> int | None:
    """The frame of the worst value, the first of equals; None where nothing is known."""
    return next(iter(_worst_of_each(known(values), len(values) or 1, better)), None)


def sparkline(values: Sequence[float | None], better: Better, label: str, shown: range) -> Html:
    """The values of frames 0, 1, 2 and so on, as an SVG as wide as its place.

    One unit of x is one frame, so that a cursor needs no scale. Where nothing is known, it has a gap.

    Args:
        shown: the frames that the player holds; the rest of the ground is darker.
    """
    total = len(values)
    step = -(-total // _POINTS) or 1
    points = _worst_of_each(known(values), step, better)
    low, high = min(points.values(), default=0.0), max(points.values(), default=0.0)

    def y(value: float) -> float:
        part = (value - low) / (high - low) if high > low else 0.5
        return round(_HEIGHT - _MARGIN - part * (_HEIGHT - 2 * _MARGIN), 2)

    path: list[str] = []
    before = None
    for at, value in points.items():
        # A point of length zero with a round end is a dot: a value between gaps is seen, too.
        joined = before is not None and at // step - before // step == 1
        path.append(f"{'L' if joined else 'M'}{at + 0.5:g} {y(value):g}{'' if joined else 'h0'}")
        before = at
    parts = [
        element("rect", class_="away", x=start, y=0, width=stop - start, height=_HEIGHT)
        for start, stop in ((0, shown.start), (shown.stop, total))
        if stop > start
    ]
    parts.append(element("path", class_="line-of", d="".join(path)))
    worst = worst_at(values, better)
    if worst is not None:
        parts.append(element("path", class_="worst", d=f"M{worst + 0.5:g} {y(known(values)[worst]):g}h0"))
    parts.append(element("line", class_="now", x1=0.5, x2=0.5, y1=0, y2=_HEIGHT))
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {total} {_HEIGHT:g}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


def _worst_of_each(found: dict[int, float], step: int, better: Better) -> dict[int, float]:
    """The worst value of every `step` frames, by frame."""
    sign = 1 if better == "lower" else -1
    groups: dict[int, int] = {}
    for at, value in found.items():
        kept = groups.get(at // step)
        if kept is None or sign * value > sign * found[kept]:
            groups[at // step] = at
    return {at: found[at] for at in groups.values()}
