"""Card shapes and wall patterns as signed distances, in the units of x and y, negative inside.

A distance tells how much of a pixel lies inside, so edges move smoothly by any fraction of a pixel. It also
gives outlines, soft shadows and the depth mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _circle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x, y) - 0.9


def _ring(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(np.hypot(x, y) - 0.66) - 0.29


def _moon(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum(np.hypot(x, y) - 0.95, 0.62 - np.hypot(x - 0.55, y))


def _cross(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    long, short = np.maximum(np.abs(x), np.abs(y)), np.minimum(np.abs(x), np.abs(y))
    return np.maximum(long - 0.9, short - 0.36)


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _points(x, y, 4, math.cos(math.pi / 4), rounding=0.06)


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _points(x, y, 3, math.cos(math.pi / 3), rounding=0.06)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _points(x, y, 5, 0.5, rounding=0.04)


def _points(x: np.ndarray, y: np.ndarray, points: int, inner: float, rounding: float) -> np.ndarray:
    """A star with its tips on the unit circle and its notches at radius `inner`; its corners are rounded.

    With inner = cos(pi / points) the notches fall on the edges, and the star is a regular polygon.
    """
    # Fold the plane into half a sector: every edge lands on the one from a tip to a notch.
    sector = math.pi / points
    angle = np.abs((np.arctan2(x, -y) + sector) % (2 * sector) - sector)
    radius = np.hypot(x, y)
    tip = 1.0 - rounding
    px, py = radius * np.cos(angle) - tip, radius * np.sin(angle)
    ex, ey = inner * tip * math.cos(sector) - tip, inner * tip * math.sin(sector)
    along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
    side = np.sign(py * -ex + px * ey)
    return side * np.hypot(px - along * ex, py - along * ey) - rounding


@dataclass(frozen=True)
class Shape:
    """`edge` is the outline, within the unit circle; `mark` is a spot that shows how far it has turned."""

    edge: Distance
    mark: Distance | None = None


def _spot(x0: float, y0: float, radius: float) -> Distance:
    return lambda x, y: np.hypot(x - x0, y - y0) - radius


SHAPES: dict[str, Shape] = {
    "circle": Shape(_circle, _spot(0.0, -0.42, 0.27)),
    "ring": Shape(_ring, _spot(0.0, -0.66, 0.2)),
    "moon": Shape(_moon),
    "cross": Shape(_cross, _spot(0.0, -0.5, 0.2)),
    "square": Shape(_square, _spot(0.0, -0.32, 0.22)),
    "triangle": Shape(_triangle, _spot(0.0, -0.1, 0.2)),
    "star": Shape(_star, _spot(0.0, 0.0, 0.2)),
}


def noise(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """An endless smooth texture: blobs of about one unit, mean 0, variance 1. No table, hence no seam."""
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
    for k, rate in enumerate((2.6, 3.4, 4.3, 5.3, 6.7, 8.1)):
        angle = 2.4 * k  # the golden angle: directions spread and never repeat
        total += np.sin((rate * math.cos(angle)) * x + (rate * math.sin(angle)) * y + k * k)
    return total / np.float32(math.sqrt(3))


def _bars(x: np.ndarray) -> np.ndarray:
    return np.abs(x % 1 - 0.5) - 0.25


def _stripes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _bars(x) + 0 * y


def _checks(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b = _bars(x), _bars(y)
    return np.sign(a * b) * np.minimum(np.abs(a), np.abs(b))


def _dots(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.hypot(x % 1 - 0.5, y % 1 - 0.5) - 0.29


def _waves(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return _bars(y + 0.22 * np.sin(2.5 * x)) * np.float32(0.9)


def _clouds(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return noise(0.5 * x, 0.5 * y) / np.float32(3.2)  # the mean slope, to bring it to a distance


def _rays(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    rays = 12
    return _bars(np.arctan2(y, x) * (rays / math.tau)) * np.hypot(x, y) * np.float32(math.tau / rays)


def _hills(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return 0.35 * noise(0.2 * x, 0 * x) - y


@dataclass(frozen=True)
class Pattern:
    """A two-tone field of period about 1. `wander`: how far its origin may lie; `turns`: at any angle."""

    field: Distance
    wander: tuple[float, float] = (20.0, 20.0)
    turns: bool = True


PATTERNS: dict[str, Pattern] = {
    "stripes": Pattern(_stripes),
    "checks": Pattern(_checks),
    "dots": Pattern(_dots),
    "waves": Pattern(_waves),
    "clouds": Pattern(_clouds),
    "rays": Pattern(_rays, wander=(0.4, 0.4), turns=False),
    "hills": Pattern(_hills, wander=(20.0, 0.3), turns=False),
}
