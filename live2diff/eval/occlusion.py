"""Which pixels of a frame are seen again in the next one, and the next frame brought back to this one.

Legend: flow (H, W, 2) float32, in pixels, x then y: what is at (x, y) in this frame is at (x, y) + flow in
the next. The rules and their constants are those of Ruder, Dosovitskiy, Brox, "Artistic style transfer for
videos" (2016), equations 5 and 6, which Lai et al. (2018) measure with.
"""

from __future__ import annotations

import numpy as np
import torch

# (flow there + flow back)^2 may be this share of their squares, plus this much, pixels^2.
CONSISTENCY = (0.01, 0.5)
# The squared gradient of the flow likewise; where it is larger, the flow is of two objects.
BOUNDARY = (0.01, 0.002)

_AT_ONCE = 1 << 17  # pixels

RULE = (
    f"forward-backward {CONSISTENCY[0]:g} {CONSISTENCY[1]:g}, "
    f"motion boundary {BOUNDARY[0]:g} {BOUNDARY[1]:g}, inside the frame"
)


def warp(image: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What of the next frame each pixel of this one moves to, bilinear; whole-pixel flow is exact.

    Args:
        image: the next frame, or anything of its size: (H, W, C).
        flow: from this frame to the next, (H, W, 2).

    Returns:
        float32 (H, W, C), and bool (H, W): whether the place lies inside the frame. Outside, the nearest
        pixel inside is taken.
    """
    height, width = flow.shape[:2]
    image = np.ascontiguousarray(image, dtype=np.float32)
    pixels = torch.from_numpy(image).reshape(height * width, -1)
    warped = np.empty((height, width, pixels.shape[1]), np.float32)
    inside = np.empty((height, width), bool)
    rows = max(1, _AT_ONCE // width)
    for top in range(0, height, rows):  # in bands: what lies between takes several times the picture
        band = slice(top, top + rows)
        warped[band], inside[band] = _band(pixels, height, width, flow[band], top)
    return warped, inside


def _band(
    pixels: torch.Tensor, height: int, width: int, flow: np.ndarray, first: int
) -> tuple[np.ndarray, np.ndarray]:
    """`warp` for the rows from `first` on that `flow` is of; `pixels` (H * W, C)."""
    there = torch.from_numpy(np.ascontiguousarray(flow)).double()
    x = there[..., 0] + torch.arange(width)
    y = there[..., 1] + torch.arange(first, first + len(flow))[:, None]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.floor(), y.floor()
    across, down = (x - left).float().reshape(-1, 1), (y - top).float().reshape(-1, 1)
    left, top = left.long().flatten(), top.long().flatten()
    right, bottom = (left + 1).clamp_max(width - 1), (top + 1).clamp_max(height - 1)

    def at(row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        return pixels[row * width + column]

    upper = at(top, left) * (1 - across) + at(top, right) * across
    lower = at(bottom, left) * (1 - across) + at(bottom, right) * across
    warped = upper * (1 - down) + lower * down
    return warped.reshape(*flow.shape[:2], -1).numpy(), inside.numpy()


def visible(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """Where this frame is seen again in the next one: bool (H, W).

    Not where flow there and back do not meet (occlusion), where the flow has an edge (motion boundary), and
    where it leaves the frame.

    Args:
        forward: flow from this frame to the next, (H, W, 2).
        backward: flow from the next frame to this one.
    """
    forward = forward.astype(np.float32, copy=False)
    back, inside = warp(backward.astype(np.float32, copy=False), forward)
    share, slack = CONSISTENCY
    meets = _square(forward + back) <= share * (_square(forward) + _square(back)) + slack
    share, slack = BOUNDARY
    steep = sum(_square(np.gradient(forward, axis=axis)) for axis in (0, 1) if forward.shape[axis] > 1)
    return inside & meets & (steep <= share * _square(forward) + slack)


def _square(flow: np.ndarray) -> np.ndarray:
    return (flow * flow).sum(axis=-1)
