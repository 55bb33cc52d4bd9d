"""Save the work where nothing moves: a frame like the one before it shows what that one became.

The idea is StreamDiffusion's (Kodaira et al. 2023, stochastic similarity filter), without its dice: what is
skipped follows from the frames alone, so that the same video is skipped in the same way.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from live2diff.errors import UsageError
from live2diff.stream.engine import Stream

_SIDE = 64  # pixels of the small pictures that are compared; sensor noise averages out


class SkipStill:
    """A `Stream` that takes no work from frames that are similar to the last one it denoised.

    As many frames come out as go in. When the picture comes to rest, the frames in the pipeline are finished
    at once, so a still picture has no delay.

    Args:
        threshold: similarity from which on two pictures count as the same, up to 1: 2 a.b / (a.a + b.b) of
            their values in [-1, 1] at 64 x 64 pixels. That is the cosine where both are equally strong; a
            picture that only gets darker has a cosine of 1 and is not the same.
    """

    def __init__(self, stream: Stream, threshold: float):
        if not 0 < threshold <= 1:
            raise UsageError(f"--similar-frame-skip {threshold:g}: expected a number above 0, up to 1")
        self.stream, self.threshold = stream, threshold
        self.size, self.warmup = stream.size, stream.warmup
        self.skipped = 0
        self._last: np.ndarray | None = None  # of the frame denoised last, small
        self._shown: np.ndarray | None = None  # what came out last

    def push(self, frame: np.ndarray) -> list[np.ndarray]:
        """As `Stream.push`."""
        small = cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) / np.float32(127.5) - 1
        if self._shown is not None and not self.stream.unsettled and self._is_similar(small):
            self.skipped += 1
            done = self._keep(self.stream.flush())
            assert self._shown is not None
            return [*done, self._shown]
        self._last = small
        return self._keep(self.stream.push(frame))

    def flush(self) -> list[np.ndarray]:
        """As `Stream.flush`."""
        return self._keep(self.stream.flush())

    def change(self, *args: Any, **kwargs: Any) -> list[np.ndarray]:
        """As `Stream.change`; the next frame is denoised, whatever it shows."""
        self._last = None
        return self._keep(self.stream.change(*args, **kwargs))

    def _keep(self, done: list[np.ndarray]) -> list[np.ndarray]:
        self._shown = done[-1] if done else self._shown
        return done

    def _is_similar(self, small: np.ndarray) -> bool:
        if self._last is None:
            return False
        both = float(np.vdot(small, small) + np.vdot(self._last, self._last))
        return both == 0 or 2 * float(np.vdot(small, self._last)) / both >= self.threshold
