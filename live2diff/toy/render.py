"""Pictures and exact inverse depth of a toy scene.

Sizes are (width, height) in pixels, times are seconds. Pictures are uint8 RGB (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from live2diff.toy.looks import find_look
from live2diff.toy.scene import Scene
from live2diff.toy.view import View


def render(scene: Scene, t: float, size: tuple[int, int], look: str) -> np.ndarray:
    """The picture at `t` seconds: uint8 RGB (H, W, 3).

    Raises UsageError for an unknown look or a size `check_size` refuses.
    """
    paint, view = find_look(look), View(scene, t, size)
    canvas = paint.wall(view)
    for card in reversed(scene.cards):
        paint.card(view, card, canvas)
    pixels = (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def inverse_depth(scene: Scene, t: float, size: tuple[int, int]) -> np.ndarray:
    """1 / z of what each pixel's centre sees: float32 (H, W) in (0, 1), nearer is larger, edges are hard."""
    view = View(scene, t, size)
    depth = view.wall_inverse_depth()
    for card in reversed(scene.cards):
        seen = view.card(card)
        depth[seen.rows, seen.cols][seen.edge() < 0] = seen.inverse_depth
    return depth


def frames(
    seed: int, times: Sequence[float] | np.ndarray, size: tuple[int, int], look: str
) -> tuple[np.ndarray, np.ndarray]:
    """Scene `seed` at `times`: uint8 RGB (F, H, W, 3) and float32 inverse depth (F, H, W)."""
    scene = Scene.sample(seed)
    rgb = [render(scene, float(t), size, look) for t in times]
    depth = [inverse_depth(scene, float(t), size) for t in times]
    return np.stack(rgb), np.stack(depth)
