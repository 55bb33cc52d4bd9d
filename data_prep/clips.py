"""From shots to clips: which source frame is shown at each step of a constant frame rate. No pixels here."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

# Containers round times (often to a millisecond). A frame this share of an output step late is still on time;
# without it a 24 fps WebM resampled to 24 fps would repeat and skip frames.
_SLACK = 0.1


@dataclass(frozen=True)
class Clip:
    """One clip to be written.

    Attributes:
        shot, number: place in the source; both are part of the key.
        frames: source frame index of each output frame, never falling; a repeated index holds a frame.
        start_s: time of the first output frame, seconds from the first frame of the source.
    """

    shot: int
    number: int
    frames: tuple[int, ...]
    start_s: float


def plan_clips(
    shots: Sequence[tuple[int, int]],
    times: Sequence[float],
    source_rate: Fraction,
    fps: Fraction,
    *,
    min_frames: int,
    max_seconds: float,
) -> list[Clip]:
    """Resample every shot to `fps` and cut it into clips of at most `max_seconds`.

    An output frame shows the newest source frame of the shot that is not later than it. What is left of a
    shot is kept as a clip if it has `min_frames`, which also bounds `max_seconds` from below.

    Args:
        shots: frame ranges [first, last + 1).
        times: seconds of each source frame, never falling.
        source_rate: how long the last frame of a shot lasts, as a rate.
    """
    max_frames = max(int(max_seconds * fps), min_frames)
    clips = []
    for shot, span in enumerate(shots):
        frames = resample(span, times, source_rate, fps)
        for number, start in enumerate(range(0, len(frames), max_frames)):
            part = frames[start : start + max_frames]
            if len(part) >= min_frames:
                clips.append(Clip(shot, number, tuple(part), times[span[0]] + float(start / fps)))
    return clips


def resample(
    span: tuple[int, int], times: Sequence[float], source_rate: Fraction, fps: Fraction
) -> list[int]:
    """Source frame index for each step of `fps` over the shot `span`; empty for an empty shot."""
    first, stop = span
    if first >= stop:
        return []
    begin = times[first]
    length = times[stop - 1] - begin + float(1 / source_rate)
    return [
        max(first, bisect_right(times, begin + (step + _SLACK) / float(fps), lo=first, hi=stop) - 1)
        for step in range(max(1, int(length * float(fps) + _SLACK)))
    ]
