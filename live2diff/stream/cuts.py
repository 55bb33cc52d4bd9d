"""Cuts in a live picture: noticed at the first frame after them, with nothing known of what follows.

`data_prep` finds cuts more carefully by looking two frames ahead, which a stream cannot. The rule is the same
as that of PySceneDetect's `AdaptiveDetector`, with the past alone as the measure of the ordinary.
"""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

_SIDE = 144  # short side that is looked at, pixels: finer detail only adds noise
_WINDOW = 5  # frames whose change is the measure of the ordinary


class LiveCuts:
    """Tells cuts from motion by how suddenly the picture changes.

    Args:
        shortest: frames between two cuts at least; a flash is not two scenes.
        change: the least change, mean absolute difference of brightness (the V of HSV), 0 to 255.
        ratio: how many times larger than in the frames before it must be: a fast pan is not a cut.
    """

    def __init__(self, shortest: int, change: float = 20, ratio: float = 2.5):
        self._shortest, self._change, self._ratio = max(shortest, 1), change, ratio
        self._last: np.ndarray | None = None
        self._changes: deque[float] = deque(maxlen=_WINDOW)
        self._age = 0  # frames of this scene

    def see(self, picture: np.ndarray) -> bool:
        """Whether the next frame, uint8 RGB (H, W, 3), begins a new scene."""
        height, width = picture.shape[:2]
        scale = min(1.0, _SIDE / min(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        brightness = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).max(-1).astype(np.float32)
        last, self._last = self._last, brightness
        self._age += 1
        if last is None:
            return False
        change = float(np.abs(brightness - last).mean())
        ordinary = sum(self._changes) / max(len(self._changes), 1)
        self._changes.append(change)
        if self._age <= self._shortest or change < max(self._change, self._ratio * ordinary):
            return False
        self._age = 1
        return True
