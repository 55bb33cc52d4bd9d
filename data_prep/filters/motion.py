"""How much moves in a clip: optical flow between frames a tenth of a second apart.

The score is the mean length of the flow over the picture and the clip, in short sides of the picture per
second. 0.1 is a camera that pans over a tenth of the height of a landscape picture each second, or an object
on a tenth of the picture that crosses this height in a second. Being a speed, it does not depend on the frame
rate. Compression noise on a still picture scores up to about 0.002.
"""

from __future__ import annotations

import cv2
import numpy as np

_STEP_S = 0.1  # seconds between two compared frames: long enough for slow motion, short enough for fast


class Motion:
    """Watches grey uint8 frames (H, W). `frames`: how many will come, `fps` per second."""

    def __init__(self, frames: int, fps: float):
        self._step = max(1, min(round(_STEP_S * fps), frames - 1))
        self._seconds = self._step / fps
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._before: np.ndarray | None = None
        self._seen = 0
        self._speeds: list[float] = []

    def see(self, grey: np.ndarray) -> None:
        if self._seen % self._step == 0:
            if self._before is not None:
                flow = self._flow.calc(self._before, grey, None)  # type: ignore[call-overload]
                pixels = float(np.hypot(flow[..., 0], flow[..., 1]).mean())
                self._speeds.append(pixels / min(grey.shape) / self._seconds)
            self._before = grey
        self._seen += 1

    @property
    def score(self) -> float:
        """Mean speed, short sides per second; 0 before two frames were compared."""
        return sum(self._speeds) / len(self._speeds) if self._speeds else 0.0
