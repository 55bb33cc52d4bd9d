"""Frames of a video on one picture: what a player in the page shows without a video file or a codec.

Every frame of a sheet can be reached at once, and a row of pixels over time can be cut from it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

COLUMNS = 16  # frames side by side
MOST = 160  # frames on a sheet: the sides of a WebP end at 16383 pixels
_AREA = 384 * 216  # pixels of a frame, at most
_LONGEST = 640  # pixels of its longer side, at most
_QUALITY = 75


def shrink(frame: np.ndarray) -> np.ndarray:
    """A uint8 RGB frame (H, W, 3) as large as a sheet shows it; one that is small already stays."""
    height, width = frame.shape[:2]
    scale = min(1.0, math.sqrt(_AREA / (width * height)), _LONGEST / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def make_sheet(frames: Sequence[np.ndarray]) -> bytes:
    """`shrink`ed frames row by row, `COLUMNS` (or all, if fewer) in a row, as a WebP picture.

    Raises:
        ValueError: none, or more than `MOST`.
    """
    if not 0 < len(frames) <= MOST:
        raise ValueError(f"a sheet holds 1 to {MOST} frames, not {len(frames)}")
    columns = min(COLUMNS, len(frames))
    padded = [*frames, *[np.zeros_like(frames[0])] * (-len(frames) % columns)]
    rows = [np.concatenate(padded[start : start + columns], 1) for start in range(0, len(padded), columns)]
    bgr = np.ascontiguousarray(np.concatenate(rows)[..., ::-1])
    return cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])[1].tobytes()
