"""Warp error: how much a video changes along the motion of its source (Lai et al. 2018, equations 7 and 8).

For adjacent frames, each pixel of the earlier one is compared with the place in the later one where the
source's flow says it went. The squared difference is averaged over the pixels that stay visible, over the
three colours (the paper's norm adds them up: three times ours), over pairs, and over videos. Colours are in
[0, 1]. The literature often prints the number times 1000.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from live2diff.eval.flow import Flow
from live2diff.eval.metric import Kind, Score, mean_of
from live2diff.eval.occlusion import RULE, visible, warp
from live2diff.eval.results import Signature

KIND = Kind("warp_error", "squared change along the source's motion, where it stays visible", "", "lower")


def pair_error(first: np.ndarray, second: np.ndarray, forward: np.ndarray, mask: np.ndarray) -> float | None:
    """The mean squared difference of two adjacent frames along the motion.

    Args:
        first, second: uint8 RGB (H, W, 3).
        forward: flow from `first` to `second`, (H, W, 2), see `live2diff.eval.occlusion`.
        mask: bool (H, W), the pixels of `first` that count; those that leave the frame never do.

    Returns:
        0 to 1, or None where no pixel counts.

    Raises:
        ValueError: frames that are not uint8.
    """
    if first.dtype != np.uint8 or second.dtype != np.uint8:
        raise ValueError(f"frames are {first.dtype} and {second.dtype}, expected uint8")
    moved, inside = warp(second, forward)
    counts = mask & inside
    if not counts.any():
        return None
    difference = (moved[counts] - first[counts].astype(np.float32)).astype(np.float64) / 255
    return float(np.mean(difference**2))


def warp_error(
    pred: np.ndarray,
    forward: np.ndarray | Sequence[np.ndarray],
    backward: np.ndarray | Sequence[np.ndarray] | None = None,
    *,
    mask: np.ndarray | Sequence[np.ndarray] | None = None,
) -> tuple[float | None, list[float | None]]:
    """Warp error of a video along flow that is known.

    Args:
        pred: uint8 RGB (F, H, W, 3).
        forward: flow of the source from each frame to the next, (F - 1, H, W, 2).
        backward: from each next frame back, the same shape; what is occluded then follows from both.
        mask: instead of `backward`: bool (F - 1, H, W), which pixels of each earlier frame count.

    Returns:
        The mean over pairs (None where no pixel of any counts), and by frame that of the pair it ends.

    Raises:
        ValueError: neither or both of `backward` and `mask`, or not one for each pair.
    """
    given = mask if backward is None else backward
    if given is None or (backward is not None and mask is not None):
        raise ValueError("give backward or mask, one of them")
    if not len(forward) == len(given) == len(pred) - 1:
        raise ValueError(f"{len(pred)} frames need {len(pred) - 1} flows, not {len(forward)}, {len(given)}")
    if mask is None:
        mask = [visible(there, back) for there, back in zip(forward, given, strict=True)]
    pairs = zip(pred[:-1], pred[1:], forward, mask, strict=True)
    per_frame: list[float | None] = [None, *(pair_error(*pair) for pair in pairs)]
    return mean_of(per_frame, "").value, per_frame


class WarpError:
    """Warp error with estimated flow on the source, in both directions.

    Attributes:
        flow: the estimator.
    """

    kinds = (KIND,)

    def __init__(self, flow: Flow):
        self.flow = flow

    def signatures(self) -> dict[str, Signature]:
        return {
            KIND.name: {
                "version": 1,
                "flow": self.flow.name,
                "flow_of": "source",
                "direction": "later frame warped back by forward flow, bilinear",
                "mask": RULE,
                "range": "0 to 1",
                "reduction": "mean over visible pixels and colours, pairs, videos",
            }
        }

    def begin(self) -> _Measurement:
        return _Measurement(self.flow)


class _Measurement:
    def __init__(self, flow: Flow):
        self._flow = flow
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._per_frame: list[float | None] = []

    def add(self, source: np.ndarray, pred: np.ndarray) -> None:
        error = None
        if self._last is not None:
            before, pred_before = self._last
            forward, backward = self._flow(before, source), self._flow(source, before)
            error = pair_error(pred_before, pred, forward, visible(forward, backward))
        self._per_frame.append(error)
        self._last = source, pred

    def scores(self) -> dict[str, Score]:
        few = "fewer than 2 frames" if len(self._per_frame) < 2 else "no pixel stays visible"
        return {KIND.name: mean_of(self._per_frame, few)}
