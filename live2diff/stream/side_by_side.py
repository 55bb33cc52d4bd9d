"""A picture of input frames above what came of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from live2diff.files import staged_file


class Strip:
    """About `MOST` evenly spaced frames of a video whose length is not known beforehand."""

    MOST = 8

    def __init__(self) -> None:
        self._every = 1
        self._count = 0
        self._frames: dict[int, np.ndarray] = {}

    def add(self, frame: np.ndarray) -> None:
        """Look at the next frame, uint8 RGB (H, W, 3)."""
        if self._count % self._every == 0:
            self._frames[self._count] = frame
        if len(self._frames) > self.MOST:
            self._every *= 2
            self._frames = {i: kept for i, kept in self._frames.items() if i % self._every == 0}
        self._count += 1

    def row(self) -> np.ndarray:
        """The kept frames side by side, uint8 RGB (H, N * W, 3)."""
        return np.concatenate(list(self._frames.values()), axis=1)


def save_side_by_side(path: str | Path, *rows: np.ndarray) -> None:
    """Write rows of equal width below each other as a PNG; small frames are enlarged to be seen."""
    picture = np.concatenate(rows)
    scale = max(1, round(192 * len(rows) / picture.shape[0]))
    picture = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    with staged_file(path) as stage:
        cv2.imwrite(str(stage), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
