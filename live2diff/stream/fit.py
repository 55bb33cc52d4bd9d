"""Frames of any shape to the size that a stream works at."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import cv2
import numpy as np

Fit = Literal["crop", "pad", "stretch"]


def fit(
    picture: np.ndarray, size: tuple[int, int], how: Fit = "crop", aspect: Fraction | float = 1
) -> np.ndarray:
    """A uint8 RGB picture (H, W, 3) as one of exactly `size` = (width, height), square pixels.

    Args:
        how: `crop` cuts off what is too much, evenly at both ends; `pad` shows all of it between black bars;
            `stretch` gives up its shape.
        aspect: width of the picture's pixels over their height.
    """
    height, width = picture.shape[:2]
    across, down = size[0] / (width * float(aspect)), size[1] / height
    if how == "crop":
        scale = max(across, down)
        kept = (_within(width, width * across / scale), _within(height, height * down / scale))
        left, top = (width - kept[0]) // 2, (height - kept[1]) // 2
        return _resize(picture[top : top + kept[1], left : left + kept[0]], size)
    if how == "stretch":
        return _resize(picture, size)
    scale = min(across, down)
    inner = (_within(size[0], size[0] * scale / across), _within(size[1], size[1] * scale / down))
    left, top = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    framed = np.zeros((size[1], size[0], 3), np.uint8)
    framed[top : top + inner[1], left : left + inner[0]] = _resize(picture, inner)
    return framed


def _within(most: int, pixels: float) -> int:
    return min(most, max(1, round(pixels)))


def _resize(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = picture.shape[:2]
    if (width, height) == size:
        return np.ascontiguousarray(picture)
    shrinks = size[0] * size[1] < width * height
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
