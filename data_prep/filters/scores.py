"""All scores of one clip, and whether the thresholds let it pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from data_prep.config import PrepConfig
from data_prep.filters.fingerprint import Fingerprint
from data_prep.filters.letterbox import Letterbox
from data_prep.filters.light import Light
from data_prep.filters.motion import Motion

_SIDE = 128  # short side of the grey pictures the filters see, pixels; smaller frames stay as they are


class Scores:
    """Watches the frames of one clip.

    Args:
        frames: how many will come.
        fps: frames per second.
    """

    def __init__(self, frames: int, fps: float):
        self._motion = Motion(frames, fps)
        self._light = Light()
        self._letterbox = Letterbox()
        self._fingerprint = Fingerprint(frames)

    def see(self, image: np.ndarray) -> None:
        """Look at the next frame, uint8 RGB (H, W, 3)."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        scale = _SIDE / min(grey.shape)
        if scale < 1:
            height, width = (max(1, round(side * scale)) for side in grey.shape)
            grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
        for watcher in (self._motion, self._light, self._letterbox, self._fingerprint):
            watcher.see(grey)

    def values(self) -> dict[str, Any]:
        """`motion`, `brightness`, `contrast`, `letterbox` (each explained in its module), `fingerprint`."""
        return {
            "motion": round(self._motion.score, 4),
            "brightness": round(self._light.brightness, 4),
            "contrast": round(self._light.contrast, 4),
            "letterbox": round(self._letterbox.score, 4),
            "fingerprint": self._fingerprint.hex,
        }


def reason_to_drop(scores: Mapping[str, Any], config: PrepConfig) -> str | None:
    """Why a clip with these scores is not kept, `kind: details`, or None. A threshold of None is off."""
    lower_bounds = (
        ("black", "brightness", config.min_brightness),
        ("nothing to see", "contrast", config.min_contrast),
        ("static", "motion", config.min_motion),
    )
    for kind, name, least in lower_bounds:
        if least is not None and scores[name] < least:
            return f"{kind}: {name} {scores[name]:g}, at least {least:g} is wanted"
    most = config.max_letterbox
    if most is not None and scores["letterbox"] > most:
        return f"letterboxed: {scores['letterbox']:.0%} of the picture is bars, at most {most:.0%} is wanted"
    return None
