"""How much of a clip is bars: dark or bright borders, even in colour, that stay put from start to end."""

from __future__ import annotations

import numpy as np

_EVEN = 10  # largest difference of luma within a bar, over its area and the time: compression leaves some
_DARK, _BRIGHT = 40, 235  # luma up to and from which a border can be a bar; a blue sky is none
_SHARE = 0.98  # of a line's pixels must be even: the compressed edge of the picture reaches into it


class Letterbox:
    """Watches grey uint8 frames (H, W); keeps the least and the greatest value of every pixel."""

    def __init__(self) -> None:
        self._least: np.ndarray | None = None
        self._most: np.ndarray | None = None

    def see(self, grey: np.ndarray) -> None:
        if self._least is None or self._most is None:
            self._least, self._most = grey.copy(), grey.copy()
        else:
            np.minimum(self._least, grey, out=self._least)
            np.maximum(self._most, grey, out=self._most)

    @property
    def score(self) -> float:
        """Share of the picture's area that bars cover, 0 to 1."""
        if self._least is None or self._most is None:
            return 0.0
        height, width = self._least.shape
        top, bottom = _bars(self._least, self._most)
        if top + bottom >= height:
            return 1.0
        rows = slice(top, height - bottom)  # between the bars a pillar is even over its whole length
        left, right = _bars(self._least[rows].T, self._most[rows].T)
        inner = (height - top - bottom) * max(0, width - left - right)
        return 1 - inner / (height * width)


def _bars(least: np.ndarray, most: np.ndarray) -> tuple[int, int]:
    """Lines (axis 0) of the bars at the beginning and at the end."""
    return _bar(least, most), _bar(least[::-1], most[::-1])


def _bar(least: np.ndarray, most: np.ndarray) -> int:
    """Number of lines (axis 0), counted from the first, that belong to one bar."""
    colour = (float(np.median(least[0])) + float(np.median(most[0]))) / 2
    if _DARK < colour < _BRIGHT:
        return 0
    even = (least >= colour - _EVEN) & (most <= colour + _EVEN)
    lines = even.mean(axis=1) >= _SHARE
    return len(lines) if lines.all() else int(np.argmin(lines))
