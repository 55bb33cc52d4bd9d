"""Exact optical flow between two moments of a toy scene, and which of it can be seen.

Every surface is flat and moves by a formula, so the point that a pixel sees at one time has one place in
the picture at any other: nothing is estimated. Looks that are painted onto the surfaces (`cartoon`,
`drawing`) move by exactly this flow. The light and shadows of `photo` do not: its colours change a little.
"""

from __future__ import annotations

import math

import numpy as np

from live2diff.toy.scene import FOCAL, PIVOT, WALL_DEPTH, Card, Scene
from live2diff.toy.shapes import SHAPES
from live2diff.toy.view import View

Points = tuple[np.ndarray, np.ndarray]  # (u, v) in view units, each (H, W)
_WALL = -1  # its number among the surfaces; cards count from 0, the nearest


def optical_flow(scene: Scene, t: float, to: float, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Where every pixel of the picture at `t` is at `to`, in seconds; `to` may lie before `t`.

    Args:
        size: (width, height) in pixels.

    Returns:
        flow: float32 (H, W, 2), pixels to the right and downwards: what pixel (x, y) shows at `t` is at
            (x + flow[y, x, 0], y + flow[y, x, 1]) at `to`.
        seen: bool (H, W), whether it can be seen there: inside the picture (between the centres of its outer
            pixels) and not behind a card.

    Raises:
        UsageError: a size that `check_size` refuses.
    """
    before, after = View(scene, t, size), View(scene, to, size)
    u, v = np.meshgrid(before.u.astype(np.float64), before.v.astype(np.float64))
    surface = _surface(before, u, v)
    there_u, there_v = _wall_moves(before, after, u, v)
    for number, card in enumerate(scene.cards):
        on = surface == number
        there_u[on], there_v[on] = _card_moves(before, after, card, u[on], v[on])
    flow = np.stack([there_u - u, there_v - v], axis=-1) / before.pixel
    inside = (np.abs(there_u) <= after.u[-1]) & (np.abs(there_v) <= after.v[-1])
    return flow.astype(np.float32), inside & (_surface(after, there_u, there_v) == surface)


def _surface(view: View, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which surface each point shows: the number of the nearest card there, or `_WALL`."""
    surface = np.full(u.shape, _WALL)
    for number, card in reversed(list(enumerate(view.scene.cards))):
        surface[SHAPES[card.shape].edge(*_on_card(view, card, u, v)) < 0] = number
    return surface


def _on_card(view: View, card: Card, u: np.ndarray, v: np.ndarray) -> Points:
    """Points of the picture in the card's own coordinates: card radii, turning with it."""
    (u0, v0), radius, _ = view.place(card)
    cos, sin = math.cos(card.turn(view.t)), math.sin(card.turn(view.t))
    dx, dy = (u - u0) / radius, (v - v0) / radius
    return cos * dx + sin * dy, cos * dy - sin * dx


def _card_moves(before: View, after: View, card: Card, u: np.ndarray, v: np.ndarray) -> Points:
    """Where the card's points at (u, v) before are after: the way back out of `_on_card`."""
    x, y = _on_card(before, card, u, v)
    (u0, v0), radius, _ = after.place(card)
    cos, sin = math.cos(card.turn(after.t)), math.sin(card.turn(after.t))
    return u0 + radius * (cos * x - sin * y), v0 + radius * (sin * x + cos * y)


def _wall_moves(before: View, after: View, u: np.ndarray, v: np.ndarray) -> Points:
    """Where the wall's points at (u, v) before are after: out to the plane, and into the other camera."""
    (cx, cy, cz), (sx, sy) = before.camera, before.scene.wall.slope
    a, b = u / FOCAL - cx / PIVOT, v / FOCAL - cy / PIVOT  # as in `View`
    depth = (WALL_DEPTH - cz - sx * cx - sy * cy) / (1 + sx * a + sy * b)
    x, y = cx + depth * a, cy + depth * b
    cx, cy, cz = after.camera
    depth = WALL_DEPTH - sx * x - sy * y - cz
    return FOCAL * ((x - cx) / depth + cx / PIVOT), FOCAL * ((y - cy) / depth + cy / PIVOT)
