"""Which videos and frames are worth a look first: the worst ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

from live2diff.eval.report.sparkline import known
from live2diff.eval.results import Results

_APART = 4  # frames: a single glitch spoils its neighbours too, and needs one picture only


@dataclass(frozen=True)
class WorstFrame:
    """Frame `frame` of `results.videos[video]`, and its value."""

    video: int
    frame: int
    value: float


def ranking_figure(results: Results) -> str | None:
    """The figure that videos and frames are ranked by: warp error, or the first that has a value by video."""
    names = ["warp_error", *results.figures]
    return next((name for name in names if any(name in video.values for video in results.videos)), None)


def worst_videos(results: Results, figure: str | None) -> list[int]:
    """Places in `results.videos`, the worst first; those without a value last."""

    def key(place: int) -> float:
        value = results.videos[place].values.get(figure or "", math.nan)
        return _sign(results, figure) * value if math.isfinite(value) else math.inf

    return sorted(range(len(results.videos)), key=key)


def worst_frames(results: Results, figure: str | None, most: int = 10) -> list[WorstFrame]:
    """The worst frames of all videos, the worst first, those of one video at least `_APART` apart."""
    if figure is None:
        return []
    sign = _sign(results, figure)
    every = [
        (sign * value, place, at)
        for place, video in enumerate(results.videos)
        for at, value in known(video.per_frame.get(figure, ())).items()
    ]
    chosen: list[WorstFrame] = []
    for value, place, at in sorted(every):
        if len(chosen) == most:
            break
        if not any(other.video == place and abs(other.frame - at) < _APART for other in chosen):
            chosen.append(WorstFrame(place, at, sign * value))
    return chosen


def _sign(results: Results, figure: str | None) -> int:
    """Times a value, what sorts the worst first."""
    found = results.figures.get(figure or "")
    return 1 if found and found.better == "higher" else -1
