"""How a scene is painted. All looks share the geometry; a new one is a new entry of `LOOKS`.

A look paints the wall first, then the cards from the farthest to the nearest. Colours are float RGB,
0 to 1, of shape (3, 1, 1): pictures are planar (3, H, W) until they are done, which numpy blends faster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from live2diff.errors import UsageError
from live2diff.toy.scene import Card
from live2diff.toy.shapes import noise
from live2diff.toy.view import CardView, View


@dataclass(frozen=True)
class Look:
    """`wall(view)` gives the background (3, H, W); `card(view, card, canvas)` paints one card onto it."""

    wall: Callable[[View], np.ndarray]
    card: Callable[[View, Card, np.ndarray], None]


def find_look(name: str) -> Look:
    """The look of this name. Raises UsageError for an unknown one."""
    if name not in LOOKS:
        raise UsageError(f"toy look {name!r}: unknown; use one of {', '.join(LOOKS)}")
    return LOOKS[name]


def _rgb(text: str) -> np.ndarray:
    return np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)], np.float32).reshape(3, 1, 1) / 255


COLOURS = {
    "red": _rgb("e8262c"),
    "orange": _rgb("ff8c12"),
    "yellow": _rgb("ffe01f"),
    "green": _rgb("27b34b"),
    "blue": _rgb("2466f0"),
    "purple": _rgb("8c34c9"),
    "pink": _rgb("ff6fb5"),
    "white": _rgb("ffffff"),
}
INK, BLACK = _rgb("1a1424"), _rgb("000000")
PAPER, PENCIL = _rgb("f6f1e4"), _rgb("6b6a78")
# Two tones a wall: pale for the cartoon, dim for the photo, so that the cards stand out in both.
CARTOON_TONES = {
    "sky": (_rgb("bfe6ff"), _rgb("86c5f4")),
    "mint": (_rgb("cdf5d6"), _rgb("8fdcb0")),
    "sand": (_rgb("fff0c4"), _rgb("f5d08a")),
    "lilac": (_rgb("e6d9ff"), _rgb("bfa8f0")),
    "rose": (_rgb("ffdfe0"), _rgb("f7b0b8")),
    "stone": (_rgb("e9ecef"), _rgb("bcc5cf")),
}
PHOTO_TONES = {
    "sky": (_rgb("66829a"), _rgb("2c3f54")),
    "mint": (_rgb("6d8a6f"), _rgb("31483b")),
    "sand": (_rgb("a18b63"), _rgb("594731")),
    "lilac": (_rgb("7a6f96"), _rgb("403856")),
    "rose": (_rgb("9a706b"), _rgb("563839")),
    "stone": (_rgb("87898c"), _rgb("44474c")),
}


def _cover(distance: np.ndarray, pixel: np.ndarray | float) -> np.ndarray:
    """How much of each pixel lies inside, 0 to 1."""
    return np.clip(0.5 - distance / pixel, 0, 1)


def _blend(canvas: np.ndarray, view: CardView, colour: np.ndarray, alpha: np.ndarray) -> None:
    part = canvas[:, view.rows, view.cols]
    part += alpha * (colour - part)


# -- cartoon: flat saturated colours, dark outlines ---------------------------------------------------------

OUTLINE = 0.12  # card radii: about 1 to 2 pixels of a 64-pixel picture


def _cartoon_wall(view: View) -> np.ndarray:
    seen, (light, dark) = view.wall(), CARTOON_TONES[view.scene.wall.tint]
    return dark + _cover(seen.field(), seen.pixel) * (light - dark)


def _cartoon_card(view: View, card: Card, canvas: np.ndarray) -> None:
    seen = view.card(card)
    edge, mark = seen.edge(), seen.mark()
    _blend(canvas, seen, INK, _cover(edge, seen.pixel))
    _blend(canvas, seen, COLOURS[card.colour], _cover(edge + OUTLINE, seen.pixel))
    if mark is not None:
        _blend(canvas, seen, INK, _cover(np.maximum(mark, edge), seen.pixel))


# -- photo: dim rough wall, worn painted cards, one soft light from the upper left ---------------------------
# The roughness belongs to the surfaces, not to the moment: it moves with them, so it shows the motion inside
# flat areas, and the picture stays a smooth function of time that a video codec keeps.

SHADOW = (0.09, 0.12)  # view units
SOFT = 0.10  # half the width of a shadow's edge, view units


def _photo_wall(view: View) -> np.ndarray:
    seen, (light, dark) = view.wall(), PHOTO_TONES[view.scene.wall.tint]
    rough = noise(2.2 * seen.x, 2.2 * seen.y)
    # Worn paint: the pattern's edges are soft and uneven.
    mix = _cover(seen.field() + 0.04 * rough, seen.pixel + 0.08)
    paint = dark + mix * (light - dark)
    stain = 1 + 0.06 * noise(0.7 * seen.x + 9, 0.7 * seen.y) + 0.035 * rough
    lamp = 1.45 - 0.38 * np.hypot(view.u[None, :] + 0.5, view.v[:, None] + 0.6)
    return paint * (stain * lamp)


def _photo_card(view: View, card: Card, canvas: np.ndarray) -> None:
    shade = view.card(card, shift=SHADOW, margin=SOFT)
    dark = 0.5 * _cover(shade.edge(), 2 * SOFT * shade.pixel / view.pixel)
    _blend(canvas, shade, BLACK, dark)

    seen = view.card(card)
    edge, mark = seen.edge(), seen.mark()
    colour = COLOURS[card.colour]
    colour = 0.9 * (colour + 0.3 * (colour.mean() - colour))
    # The light stays put while the card turns; its wear turns with it.
    lit = 0.92 - 0.22 * seen.upright_x - 0.28 * seen.upright_y
    bevel = 1 - 0.35 * np.clip(1 + edge / 0.25, 0, 1) ** 2
    worn = 1 + 0.10 * noise(0.7 * seen.x + card.grain[0], 2.4 * seen.y + card.grain[1])
    paint = colour * (lit * bevel * worn)
    if mark is not None:
        paint = paint * (1 - 0.55 * _cover(mark, seen.pixel + 0.08))
    _blend(canvas, seen, paint, _cover(edge, seen.pixel))


# -- drawing: ink lines and a thin wash on paper ------------------------------------------------------------

WALL_LINE = 0.02  # view units, half the width of a line
WASH = 0.45  # how much of a card's colour the paper takes on


def _drawing_wall(view: View) -> np.ndarray:
    seen = view.wall()
    field = seen.field()
    line = _cover(np.abs(field) - WALL_LINE * seen.pixel / view.pixel, seen.pixel)
    tone = PAPER + 0.12 * _cover(field, seen.pixel) * (PENCIL - PAPER)
    return tone + 0.7 * line * (PENCIL - tone)


def _drawing_card(view: View, card: Card, canvas: np.ndarray) -> None:
    seen = view.card(card)
    edge, mark = seen.edge(), seen.mark()
    _blend(canvas, seen, INK, _cover(edge, seen.pixel))
    wash = PAPER + WASH * (COLOURS[card.colour] - PAPER)
    _blend(canvas, seen, wash, _cover(edge + OUTLINE, seen.pixel))
    if mark is not None:
        _blend(canvas, seen, INK, _cover(np.maximum(np.abs(mark) - OUTLINE / 2, edge), seen.pixel))


LOOKS: dict[str, Look] = {
    "photo": Look(_photo_wall, _photo_card),
    "cartoon": Look(_cartoon_wall, _cartoon_card),
    "drawing": Look(_drawing_wall, _drawing_card),
}
