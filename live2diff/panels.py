"""Pictures to look at: named, side by side, large enough to be seen."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

_SMALLEST = 192  # shorter side of a picture, pixels; smaller ones are enlarged
_BAR = 24  # height of the line that names a picture
_GAP = 8
_PAPER, _INK = 24, (235, 235, 235)


def enlarge(frames: np.ndarray) -> np.ndarray:
    """uint8 RGB (..., H, W, 3) with every pixel repeated until the shorter side is long enough to be seen."""
    factor = -(-_SMALLEST // min(frames.shape[-3:-1]))
    return frames.repeat(factor, axis=-3).repeat(factor, axis=-2)


def labelled(pictures: Mapping[str, np.ndarray], *, vertical: bool = False) -> np.ndarray:
    """Pictures beside or below each other, each under its name.

    Args:
        pictures: uint8 RGB (H, W, 3) by name, of one height, or one width if `vertical`.
    """
    named = [np.concatenate([_bar(name, picture.shape[1]), picture]) for name, picture in pictures.items()]
    parts: list[np.ndarray] = []
    for picture in named:
        height, width = picture.shape[:2]
        gap = (_GAP, width, 3) if vertical else (height, _GAP, 3)
        parts += [picture, np.full(gap, _PAPER, np.uint8)]
    return np.concatenate(parts[:-1], axis=0 if vertical else 1)


def strip(frames: np.ndarray, most: int = 8) -> np.ndarray:
    """Up to `most` frames of (F, H, W, 3), evenly spaced, the first and the last among them, in a row."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, most).round().astype(int))
    return np.concatenate(list(frames[chosen]), axis=1)


def xt_slice(frames: np.ndarray, row: int) -> np.ndarray:
    """The X-T slice of a video: one row of pixels over time (Live2Diff, Fig. 3).

    What stands still is a vertical line, what moves a slanted one; flicker shows as horizontal stripes.

    Args:
        frames: uint8 RGB (F, H, W, 3).

    Returns:
        uint8 RGB (H', W, 3): x to the right, time downwards, frames repeated until they are tall enough.
    """
    return frames[:, row].repeat(-(-_SMALLEST // len(frames)), axis=0)


def _bar(name: str, width: int) -> np.ndarray:
    bar = np.full((_BAR, width, 3), _PAPER, np.uint8)
    place = (4, _BAR - 8)
    return cv2.putText(bar, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
