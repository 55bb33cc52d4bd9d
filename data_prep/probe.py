"""The truth about one file, learned by decoding every frame: headers state what their writer hoped for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median
from typing import Any

from av.video.frame import VideoFrame

from data_prep.decode import Geometry, Loss, RejectedError, decode, geometry, open_video
from data_prep.hdr import HLG, PQ

# A jump in time longer than this, either way, is a hole in the recording: the shot ends there.
HOLE_SECONDS = 2.0


@dataclass(frozen=True)
class Probe:
    """What decoding one file showed.

    Attributes:
        times: seconds from the first frame, one per decoded frame, never falling. Holes are closed up.
        holes: indices of the frames that follow a hole: a long jump in time, or frames lost to damage.
        rate: frames per second of the source, away from its irregularities.
        geometry: frame size and rotation.
        codec, pixel_format, transfer: names, and the transfer function's number in ISO/IEC 23091-2 (16 and 18
            are HDR).
        interlaced: whether any frame is flagged so.
        losses: the damaged places.
    """

    times: list[float]
    holes: list[int]
    rate: Fraction
    geometry: Geometry
    codec: str
    pixel_format: str
    transfer: int
    interlaced: bool
    losses: list[Loss]

    @property
    def damage(self) -> str | None:
        """Why the first lost frames are lost, or None."""
        return self.losses[0].reason if self.losses else None

    def facts(self) -> dict[str, Any]:
        """What the records keep."""
        return {
            "frames_decoded": len(self.times),
            "duration_s": round(self.times[-1] + float(1 / self.rate), 6),
            "fps": round(float(self.rate), 6),
            "size": list(self.geometry.upright),
            "rotation": self.geometry.turns * 90,
            "codec": self.codec,
            "pixel_format": self.pixel_format,
            "transfer": self.transfer,
            "hdr": self.transfer in (PQ, HLG),
            "interlaced": self.interlaced,
            "holes": self.holes,
            "damage": self.damage,
            "damaged_spans": [
                [loss.frame, loss.reason] for loss in self.losses if loss.frame < len(self.times)
            ],
        }


def probe(path: str, see: Callable[[VideoFrame], None]) -> Probe:
    """Decode all of `path`, showing each frame to `see` on the way.

    Raises:
        RejectedError: it cannot be opened, or not one frame decodes.
    """
    stamps: list[float | None] = []
    losses: list[Loss] = []
    first: VideoFrame | None = None
    interlaced = False
    with open_video(path) as (container, stream):
        for frame in decode(container, stream, losses):
            first = first or frame
            interlaced |= frame.interlaced_frame
            stamps.append(frame.time)
            see(frame)
        if first is None:
            raise RejectedError(f"no good frame: {losses[0].reason if losses else 'the stream is empty'}")
        stated = [Fraction(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate]
        times, holes = timeline(stamps, stated[0] if stated else Fraction(25))
        return Probe(
            times=times,
            holes=sorted({*holes, *(loss.frame for loss in losses if 0 < loss.frame < len(times))}),
            rate=source_rate(times, stated),
            geometry=geometry(first, stream),
            codec=stream.codec_context.name,
            pixel_format=first.format.name,
            transfer=int(first.color_trc),
            interlaced=interlaced,
            losses=losses,
        )


def timeline(stamps: list[float | None], rate: Fraction) -> tuple[list[float], list[int]]:
    """Presentation times in seconds -> (times from zero that never fall, indices after a hole).

    Without usable stamps the frames are spaced evenly at `rate`. Jitter that runs backwards is flattened.
    """
    known = [stamp for stamp in stamps if stamp is not None]
    if len(known) < len(stamps) or max(known) == min(known):
        return [float(number / rate) for number in range(len(stamps))], []
    times, holes, shift = [0.0], [], -known[0]
    for number, (before, now) in enumerate(pairwise(known), start=1):
        if abs(now - before) > HOLE_SECONDS:
            holes.append(number)
            shift += before - now + float(1 / rate)
        times.append(max(times[-1], now + shift))
    return times, holes


def source_rate(times: list[float], stated: Sequence[Fraction]) -> Fraction:
    """Frames per second of a video, 1 to 240.

    It is the rate of the ordinary gaps between frames, or of all gaps where most of the time has no ordinary
    ones. The header's exact fraction is preferred when one in `stated` agrees within 0.5 %.
    """
    gaps = [after - before for before, after in pairwise(times) if after > before]
    if not gaps:
        return stated[0] if stated else Fraction(25)
    middle = median(gaps)
    # Containers round times to a millisecond or so: the mean of the usual gaps undoes that, a median not.
    usual = [gap for gap in gaps if middle / 2 <= gap <= middle * 1.5]
    if sum(usual) < times[-1] / 2:
        usual = gaps
    rate = min(max(len(usual) / sum(usual), 1.0), 240.0)
    agreeing = [exact for exact in stated if abs(rate - exact) <= exact / 200]
    return agreeing[0] if agreeing else Fraction(rate).limit_denominator(1001)
