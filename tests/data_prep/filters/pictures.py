"""Textured pictures whose motion is known exactly."""

from __future__ import annotations

import cv2
import numpy as np

HEIGHT, WIDTH = 144, 192


def texture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Smooth random RGB noise, uint8 (height, width, 3), with detail at several scales."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cell in (8, 16, 48):
        coarse = rng.normal(size=(height // cell + 2, width // cell + 2, 3)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 40 * total, 0, 255).astype(np.uint8)


def pan(seconds: float, fps: float, speed: float, seed: int = 0) -> list[np.ndarray]:
    """A camera that moves to the right by `speed` picture heights a second, to fractions of a pixel."""
    frames = round(seconds * fps)
    shifts = [HEIGHT * speed * number / fps for number in range(frames)]
    wide = texture(seed, width=WIDTH + int(max(shifts)) + 2)
    moved = [
        cv2.warpAffine(wide, np.float32([[1, 0, -shift], [0, 1, 0]]), (WIDTH, HEIGHT)) for shift in shifts
    ]
    return [frame.astype(np.uint8) for frame in moved]
