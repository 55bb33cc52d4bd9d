"""The border between uint8 RGB pictures and the library's tensors in [-1, 1]."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
import torch


def to_tensor(frames: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """uint8 RGB (F, H, W, 3) -> float32 (3, F, H, W) in [-1, 1]."""
    return from_pixels(torch.from_numpy(np.ascontiguousarray(frames)).to(device))


def to_uint8(images: torch.Tensor) -> np.ndarray:
    """(3, F, H, W) in [-1, 1] -> uint8 RGB (F, H, W, 3), on the host."""
    return to_pixels(images).cpu().numpy()


def from_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """The same as `to_tensor`, of what is on the device already."""
    return pixels.permute(3, 0, 1, 2).float() / 127.5 - 1


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """The same as `to_uint8`, left on the device."""
    pixels = ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.permute(1, 2, 3, 0)


def cover(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a uint8 RGB frame (H, W, 3) to cover `size` (width, height), then cut the middle out."""
    width, height = size
    scale = max(width / frame.shape[1], height / frame.shape[0])
    inner = (max(width, round(frame.shape[1] * scale)), max(height, round(frame.shape[0] * scale)))
    if inner != (frame.shape[1], frame.shape[0]):
        frame = cv2.resize(frame, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = (inner[0] - width) // 2, (inner[1] - height) // 2
    return frame[top : top + height, left : left + width]


def square(frames: Iterable[np.ndarray], size: int, mirrored: bool = False) -> torch.Tensor:
    """What training looks at: uint8 RGB frames (H, W, 3) -> float32 (3, F, size, size) in [-1, 1].

    The middle of each frame, `cover`ed to `size` pixels, of its mirror image if `mirrored`.
    """
    step = -1 if mirrored else 1
    return to_tensor(np.stack([cover(frame[:, ::step], (size, size)) for frame in frames]))
