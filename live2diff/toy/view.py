"""The camera: which point of a scene each pixel sees, and how far away it is.

Everything is exact. The wall is a plane, so its inverse depth is linear across the picture; a card faces the
camera, so its inverse depth is one number at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from live2diff.errors import UsageError
from live2diff.toy.scene import FOCAL, PIVOT, WALL_DEPTH, Card, Scene
from live2diff.toy.shapes import PATTERNS, SHAPES

MIN_SIDE = 16
MAX_ASPECT = 2.0  # the wall stays behind every card up to here


def check_size(size: tuple[int, int]) -> None:
    """Raise UsageError for a side under 16 pixels or a picture longer than 2:1."""
    if min(size) < MIN_SIDE or max(size) > MAX_ASPECT * min(size):
        raise UsageError(f"toy size {size[0]}x{size[1]}: needs sides of {MIN_SIDE} or more, at most 2:1")


@dataclass(frozen=True)
class WallView:
    """The wall as every pixel (H, W) sees it where no card is in the way, in pattern periods."""

    pattern: str
    x: np.ndarray
    y: np.ndarray
    pixel: np.ndarray  # width of a pixel

    def field(self) -> np.ndarray:
        """Signed distance to the nearest edge of the pattern (H, W); its sign tells the two tones apart."""
        return PATTERNS[self.pattern].field(self.x, self.y)


@dataclass(frozen=True)
class CardView:
    """The part of the picture `[rows, cols]` around a card, in card radii."""

    shape: str
    rows: slice
    cols: slice
    x: np.ndarray  # coordinates that turn with the card
    y: np.ndarray
    upright_x: np.ndarray  # coordinates that do not turn
    upright_y: np.ndarray
    pixel: float  # width of a pixel
    inverse_depth: float

    def edge(self) -> np.ndarray:
        """Signed distance to the outline, negative on the card."""
        return SHAPES[self.shape].edge(self.x, self.y)

    def mark(self) -> np.ndarray | None:
        """Signed distance to the mark, negative inside; None where the shape has no mark."""
        mark = SHAPES[self.shape].mark
        return mark(self.x, self.y) if mark else None


class View:
    """A scene at one moment, as a camera of `size` = (width, height) pixels sees it.

    Raises UsageError for a size that `check_size` refuses.
    """

    def __init__(self, scene: Scene, t: float, size: tuple[int, int]):
        check_size(size)
        (width, height), short = size, min(size)
        self.scene, self.t = scene, t
        self.pixel = 2 / short  # view units
        self.u = ((np.arange(width, dtype=np.float32) + 0.5) * 2 - width) / short
        self.v = ((np.arange(height, dtype=np.float32) + 0.5) * 2 - height) / short
        self.camera = scene.camera.at(t)

    def wall_inverse_depth(self) -> np.ndarray:
        """1 / z of the wall (H, W)."""
        (cx, cy, cz), (sx, sy) = self.camera, self.scene.wall.slope
        a, b = self._rays()
        return (1 + sx * a + sy * b) / (WALL_DEPTH - cz - sx * cx - sy * cy)

    def wall(self) -> WallView:
        """Where each pixel's ray meets the wall."""
        wall, (cx, cy, _) = self.scene.wall, self.camera
        a, b = self._rays()
        inverse = self.wall_inverse_depth()
        x, y = (cx + a / inverse) / wall.pitch, (cy + b / inverse) / wall.pitch
        cos, sin = math.cos(wall.angle), math.sin(wall.angle)
        x, y = cos * x + sin * y + wall.origin[0], cos * y - sin * x + wall.origin[1]
        return WallView(wall.pattern, x, y, self.pixel / (FOCAL * inverse * wall.pitch))

    def card(self, card: Card, shift: tuple[float, float] = (0.0, 0.0), margin: float = 0.0) -> CardView:
        """A card and `margin` view units around it, its centre moved by `shift` view units (for shadows)."""
        (u0, v0), radius, inverse = self.place(card)
        u0, v0 = u0 + shift[0], v0 + shift[1]
        reach = radius + margin + self.pixel
        cols, rows = _window(self.u, u0, reach), _window(self.v, v0, reach)
        dx = ((self.u[cols] - np.float32(u0)) / np.float32(radius))[None, :]
        dy = ((self.v[rows] - np.float32(v0)) / np.float32(radius))[:, None]
        angle = card.turn(self.t)
        cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
        lx, ly = cos * dx + sin * dy, cos * dy - sin * dx
        return CardView(card.shape, rows, cols, lx, ly, dx, dy, self.pixel / radius, inverse)

    def place(self, card: Card) -> tuple[tuple[float, float], float, float]:
        """Where a card stands: centre (u, v) and radius in view units, and its inverse depth."""
        cx, cy, cz = self.camera
        inverse = 1 / (card.depth - cz)
        x, y = card.motion.at(self.t)
        # Paths are given in view units at the card's depth: times depth / FOCAL they are world units.
        u0 = (x * card.depth - FOCAL * cx) * inverse + FOCAL * cx / PIVOT
        v0 = (y * card.depth - FOCAL * cy) * inverse + FOCAL * cy / PIVOT
        return (u0, v0), FOCAL * card.radius * inverse, inverse

    def _rays(self) -> tuple[np.ndarray, np.ndarray]:
        """(1, W), (H, 1): a pixel sees the points camera + z * (a, b, 1). The shift keeps PIVOT in place."""
        cx, cy, _ = self.camera
        return (self.u / FOCAL - cx / PIVOT)[None, :], (self.v / FOCAL - cy / PIVOT)[:, None]


def _window(centres: np.ndarray, middle: float, reach: float) -> slice:
    low, high = np.searchsorted(centres, [middle - reach, middle + reach])
    return slice(int(low), int(high))
