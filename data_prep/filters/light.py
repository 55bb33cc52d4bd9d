"""How bright a clip is and how much there is to see: finds black clips and those of one even colour."""

from __future__ import annotations

import cv2
import numpy as np


class Light:
    """Watches grey uint8 frames (H, W)."""

    def __init__(self) -> None:
        self._seen = 0
        self._mean = self._spread = 0.0

    def see(self, grey: np.ndarray) -> None:
        mean, spread = cv2.meanStdDev(grey)
        self._mean += mean.item() / 255
        self._spread += spread.item() / 255
        self._seen += 1

    @property
    def brightness(self) -> float:
        """Mean luma of the clip: 0 black, 1 white."""
        return self._mean / max(1, self._seen)

    @property
    def contrast(self) -> float:
        """Standard deviation of the luma within a frame, mean over the frames: 0 (even) to 0.5."""
        return self._spread / max(1, self._seen)
