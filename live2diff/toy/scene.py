"""What a toy scene is: flat cards that move and turn before a patterned wall, seen by a drifting camera.

A scene is a handful of numbers drawn from one integer seed. It has no length and no frame rate: a position is
a formula of the time in seconds, so any moment can be drawn without those before it.

World axes: x right, y down, z away from the camera's rest position. The camera looks along z; at rest it puts
the point (X, Y, Z) at (u, v) = FOCAL * (X, Y) / Z. Half the short side of a picture is 1 ("view units").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from live2diff.errors import UsageError
from live2diff.toy.shapes import PATTERNS, SHAPES

FOCAL = 2.0
PIVOT = 3.0  # depth that stands still in the picture while the camera shifts sideways
WALL_DEPTH = 6.5
CARD_INVERSE_DEPTHS = (1 / 3.6, 1 / 2.3)  # all cards stay in front of the wall, see `View`
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
TINTS = ("sky", "mint", "sand", "lilac", "rose", "stone")
MOTIONS = ("drift", "bounce", "orbit")

# First scene seed of each split. `write_videos` refuses a range that crosses into the next one.
SPLITS = {"train": 0, "val": 800_000, "test": 900_000}


@dataclass(frozen=True)
class Motion:
    """The path of a card's centre in view units: endless, within `reach` of `anchor` on each axis."""

    kind: str
    anchor: tuple[float, float]
    reach: tuple[float, float]
    period: float  # seconds
    phase: tuple[float, float]  # turns

    def at(self, t: float) -> tuple[float, float]:
        """Centre (x, y) at `t` seconds."""
        turns = t / self.period
        if self.kind == "drift":  # two periods without a common multiple: the path does not repeat
            dx = math.sin(math.tau * (turns + self.phase[0]))
            dy = math.sin(math.tau * (turns / 1.618 + self.phase[1]))
        elif self.kind == "orbit":
            dx = math.cos(math.tau * (turns + self.phase[0]))
            dy = math.sin(math.tau * (turns + self.phase[0]))
        else:  # bounce: parabolas that meet the floor, anchor y + reach y, three times a sway
            dx = math.sin(math.tau * (turns + self.phase[0]) / 3)
            hop = (turns + self.phase[1]) % 1.0
            dy = 1 - 8 * hop * (1 - hop)
        return self.anchor[0] + self.reach[0] * dx, self.anchor[1] + self.reach[1] * dy


@dataclass(frozen=True)
class Card:
    """A flat cut-out facing the camera: a shape of one named colour that moves and turns about its centre."""

    shape: str
    colour: str
    depth: float  # z, world units
    radius: float  # of the circle around it, world units
    motion: Motion
    angle: float  # radians at t = 0, clockwise
    spin: float  # radians per second, never 0
    grain: tuple[float, float]  # where on the endless texture this card was cut from

    def turn(self, t: float) -> float:
        """Rotation angle at `t` seconds, radians, clockwise."""
        return self.angle + self.spin * t


@dataclass(frozen=True)
class Wall:
    """The background plane z = WALL_DEPTH - slope . (x, y), covered by an endless pattern in two tones."""

    pattern: str
    tint: str
    slope: tuple[float, float]
    pitch: float  # world units a pattern period
    angle: float  # radians
    origin: tuple[float, float]  # in pattern periods


@dataclass(frozen=True)
class Camera:
    """Slow sideways, upward and inward drift, each axis a sine of its own."""

    reach: tuple[float, float, float]  # world units
    period: tuple[float, float, float]  # seconds
    phase: tuple[float, float, float]  # turns

    def at(self, t: float) -> tuple[float, float, float]:
        """Position (x, y, z) at `t` seconds, world units."""
        x, y, z = (
            reach * math.sin(math.tau * (t / period + phase))
            for reach, period, phase in zip(self.reach, self.period, self.phase, strict=True)
        )
        return x, y, z


@dataclass(frozen=True)
class Scene:
    """One toy world. `cards` run from the nearest to the farthest."""

    seed: int
    cards: tuple[Card, ...]
    wall: Wall
    camera: Camera

    @classmethod
    def sample(cls, seed: int) -> Scene:
        """The scene of this seed, the same one every time. Raises UsageError for a negative seed."""
        if seed < 0:
            raise UsageError(f"toy scene seed {seed}: must be 0 or more")
        rng = np.random.default_rng(seed)
        count = int(rng.integers(2, 5))
        # No two cards look alike, so that a caption names each one.
        shapes = rng.permutation(list(SHAPES))[:count]
        colours = rng.permutation(COLOURS)[:count]
        depths = _spread_depths(rng, count)
        anchors = _spread_anchors(rng, count)
        cards = tuple(
            _sample_card(rng, str(shape), str(colour), depth, anchor, room=1.15 - 0.08 * count)
            for shape, colour, depth, anchor in zip(shapes, colours, depths, anchors, strict=True)
        )
        return cls(seed, cards, _sample_wall(rng), _sample_camera(rng))


def _spread_depths(rng: np.random.Generator, count: int) -> list[float]:
    """Depths, nearest first, that keep a clear gap in inverse depth between neighbours."""
    low, high = CARD_INVERSE_DEPTHS
    slots = (np.arange(count)[::-1] + rng.uniform(0.2, 0.8, count)) / count
    return [float(1 / (low + (high - low) * slot)) for slot in slots]


def _spread_anchors(rng: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Path centres, each the farthest of a few draws from those before it: cards meet, but do not pile up."""
    anchors: list[np.ndarray] = []
    for _ in range(count):
        draws = rng.uniform(-0.45, 0.45, (10, 2))
        gaps = [min((np.hypot(*(draw - other)) for other in anchors), default=0.0) for draw in draws]
        anchors.append(draws[int(np.argmax(gaps))])
    return [(float(x), float(y)) for x, y in anchors]


def _sample_card(
    rng: np.random.Generator,
    shape: str,
    colour: str,
    depth: float,
    anchor: tuple[float, float],
    room: float,  # scale of the card and of its path: smaller in a full scene
) -> Card:
    kind = str(rng.choice(MOTIONS))
    low, high, period = {
        "drift": ((0.20, 0.15), (0.45, 0.35), (3.5, 6.0)),
        "bounce": ((0.25, 0.20), (0.45, 0.32), (1.1, 1.7)),
        "orbit": ((0.18, 0.18), (0.35, 0.35), (2.8, 5.0)),
    }[kind]
    reach = (room * float(rng.uniform(low[0], high[0])), room * float(rng.uniform(low[1], high[1])))
    motion = Motion(kind, anchor, reach, float(rng.uniform(*period)), _pair(rng, 0, 1))
    spin = float(rng.uniform(0.7, 2.0) * rng.choice([-1, 1]))
    radius = room * float(rng.uniform(0.54, 0.64))
    return Card(
        shape, colour, depth, radius, motion, float(rng.uniform(0, math.tau)), spin, _pair(rng, -20, 20)
    )


def _sample_wall(rng: np.random.Generator) -> Wall:
    name = str(rng.choice(list(PATTERNS)))
    pattern = PATTERNS[name]
    angle = float(rng.uniform(0, math.tau)) if pattern.turns else 0.0
    origin = (
        float(rng.uniform(-pattern.wander[0], pattern.wander[0])),
        float(rng.uniform(-pattern.wander[1], pattern.wander[1])),
    )
    slope = (float(rng.uniform(-0.2, 0.2)), float(rng.uniform(0.3, 0.5)))
    pitch = float(rng.uniform(0.5, 0.8)) * WALL_DEPTH / FOCAL
    return Wall(name, str(rng.choice(TINTS)), slope, pitch, angle, origin)


def _sample_camera(rng: np.random.Generator) -> Camera:
    reach = (float(rng.uniform(0.3, 0.6)), float(rng.uniform(0.15, 0.35)), float(rng.uniform(0.1, 0.2)))
    x, y, z = rng.uniform(5.0, 9.0, 3)
    a, b, c = rng.uniform(0, 1, 3)
    return Camera(reach, (float(x), float(y), float(z)), (float(a), float(b), float(c)))


def _pair(rng: np.random.Generator, low: float, high: float) -> tuple[float, float]:
    x, y = rng.uniform(low, high, 2)
    return float(x), float(y)
