"""Videos whose truth is known: a picture that pans, a card that moves over it, noise on top."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth coloured picture without flat parts, uint8 RGB, of full contrast."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def pan(frames: int = 5, size: tuple[int, int] = (64, 48), step: tuple[int, int] = (3, 2)) -> np.ndarray:
    """A window of `size` = (width, height) that moves over a picture: content moves by -`step` a frame."""
    (width, height), (across, down) = size, step
    world = texture(height + frames * down, width + frames * across)
    return np.stack(
        [world[i * down : i * down + height, i * across : i * across + width] for i in range(frames)]
    )


def pan_flow(frames: int = 5, size: tuple[int, int] = (64, 48), step: tuple[int, int] = (3, 2)) -> np.ndarray:
    """Exact flow of `pan` from each frame to the next, (F - 1, H, W, 2)."""
    flow = np.empty((frames - 1, size[1], size[0], 2), np.float32)
    flow[:] = (-step[0], -step[1])
    return flow


def moving_card(step: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A square card that moves to the right over a still wall.

    Returns:
        Two frames (2, 72, 96, 3), exact flow forward and backward (72, 96, 2), and the pixels of the first
        frame that the card hides in the second (72, 96).
    """
    wall, card = texture(72, 96, 1), texture(24, 24, 2)
    rows, first, second = slice(20, 44), slice(30, 54), slice(30 + step, 54 + step)
    frames = np.stack([wall, wall])
    frames[0, rows, first] = card
    frames[1, rows, second] = card
    forward, backward = np.zeros((2, 72, 96, 2), np.float32)
    forward[rows, first, 0] = step
    backward[rows, second, 0] = -step
    hidden = np.zeros((72, 96), bool)
    hidden[rows, 54 : 54 + step] = True
    return frames, forward, backward, hidden


def noisy(video: np.ndarray, strength: float, seed: int = 0) -> np.ndarray:
    """With independent noise on every frame, of that standard deviation in levels."""
    noise = np.random.default_rng(seed).normal(size=video.shape)
    return np.clip(video + strength * noise, 0, 255).round().astype(np.uint8)


def write_pictures(folder: Path, video: np.ndarray, suffix: str = "png") -> Path:
    """As DAVIS keeps its videos: 00000.jpg, 00001.jpg, ..."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(video):
        cv2.imwrite(str(folder / f"{number:05d}.{suffix}"), frame[..., ::-1])
    return folder
