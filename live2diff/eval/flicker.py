"""How much a video flickers: what alternates from frame to frame, where nothing in its source moves."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

from live2diff.eval.metric import Kind, Score
from live2diff.eval.results import Signature

KIND = Kind("flicker", "what alternates from frame to frame where the source is still", "", "lower")

# A pixel is still while the brightness around it changes by no more than this from frame to frame: less is
# the noise of cameras and codecs.
_STILL = 2 / 255
_AROUND = 5  # side of the square that brightness is averaged over, pixels


def flicker(frames: np.ndarray, still: np.ndarray | None = None) -> float:
    """The temporal high-frequency energy of a video: the strength of what alternates from frame to frame.

    With y the brightness (BT.601 luma, 0 to 1) of a pixel over time, d_t = (y_t-1 - 2 y_t + y_t+1) / 4 is
    what remains of it after a high-pass filter. It is 0 where brightness stays or changes at an even pace,
    and plus or minus a where it alternates by plus or minus a. The number is the root mean square of d over
    all pixels and all frames but the first and last. Texture that moves counts too: compare with the
    input's, or leave it out with `still`.

    Args:
        frames: uint8 RGB (F, H, W, 3), F 3 or more.
        still: bool (F - 2, H, W), which pixels of all frames but the first and last count, see
            `still_parts`; None: all.

    Returns:
        0 for a still, 0.5 for frames that are black and white in turn; NaN where no pixel counts.

    Raises:
        ValueError: fewer than 3 frames, or frames that are not uint8.
    """
    if len(frames) < 3:
        raise ValueError(f"flicker needs 3 frames or more, not {len(frames)}")
    luma = np.stack([_luma(frame) for frame in frames])
    energy = _alternating(luma[:-2], luma[1:-1], luma[2:]).astype(np.float64) ** 2
    counted = energy if still is None else energy[still]
    return float(np.sqrt(np.mean(counted))) if counted.size else float("nan")


def still_parts(source: np.ndarray) -> np.ndarray:
    """Where a source does not move: uint8 RGB (F, H, W, 3) -> bool (F - 2, H, W), without the ends."""
    blurred = [_blurred(_luma(frame)) for frame in source]
    return np.stack([_still(*blurred[i : i + 3]) for i in range(len(blurred) - 2)])


class Flicker:
    """`flicker` of outputs in the `still_parts` of their sources."""

    kinds = (KIND,)

    def signatures(self) -> dict[str, Signature]:
        return {
            KIND.name: {
                "version": 1,
                "filter": "(1 -2 1) / 4 of BT.601 luma",
                "mask": f"source still: luma over {_AROUND}x{_AROUND} changes by at most "
                f"{255 * _STILL:g}/255 to both neighbours",
                "range": "0 to 1",
                "reduction": "root mean square over a video's still pixels, mean over videos",
            }
        }

    def begin(self) -> _Measurement:
        return _Measurement()


class _Measurement:
    def __init__(self) -> None:
        self._source: deque[np.ndarray] = deque(maxlen=3)
        self._pred: deque[np.ndarray] = deque(maxlen=3)
        self._per_frame: list[float | None] = []
        self._sum, self._count = 0.0, 0

    def add(self, source: np.ndarray, pred: np.ndarray) -> None:
        self._source.append(_blurred(_luma(source)))
        self._pred.append(_luma(pred))
        self._per_frame.append(None)
        if len(self._pred) < 3:
            return
        energy = _alternating(*self._pred)[_still(*self._source)].astype(np.float64) ** 2
        if energy.size:
            self._per_frame[-2] = float(np.sqrt(np.mean(energy)))
            self._sum, self._count = self._sum + float(energy.sum()), self._count + energy.size

    def scores(self) -> dict[str, Score]:
        if not self._count:
            few = len(self._per_frame) < 3
            reason = "fewer than 3 frames" if few else "no part of the source is still"
            return {KIND.name: Score(None, self._per_frame, reason)}
        return {KIND.name: Score(float(np.sqrt(self._sum / self._count)), self._per_frame)}


def _luma(frame: np.ndarray) -> np.ndarray:
    if frame.dtype != np.uint8:
        raise ValueError(f"frames are {frame.dtype}, expected uint8")
    return cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


def _blurred(luma: np.ndarray) -> np.ndarray:
    return cv2.blur(luma, (_AROUND, _AROUND))


def _alternating(before: np.ndarray, now: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before - 2 * now + after) / 4


def _still(before: np.ndarray, now: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (np.abs(before - now) <= _STILL) & (np.abs(after - now) <= _STILL)
