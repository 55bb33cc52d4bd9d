"""One short sentence about a scene: "a cartoon of a red circle and a blue star on stripes"."""

from __future__ import annotations

from live2diff.toy.looks import find_look
from live2diff.toy.scene import Card, Scene

MAX_CAPTION = 70  # characters; a character tokenizer of 77 tokens holds it with its start and end
_MAX_NAMES = 41  # two cards of the longest names; leaves room for the longest wall and a look of 12 letters


def caption(scene: Scene, look: str) -> str:
    """What the picture shows, plain lowercase ASCII, at most `MAX_CAPTION` characters.

    Names the nearest cards, nearest first: always two, more where they fit. Raises UsageError for an
    unknown look.
    """
    find_look(look)
    names = [_name(card) for card in scene.cards]
    count = len(names)
    while count > 2 and len(_join(names[:count])) > _MAX_NAMES:
        count -= 1
    return f"{_article(look)} of {_join(names[:count])} on {scene.wall.pattern}"


def _name(card: Card) -> str:
    return _article(f"{card.colour} {card.shape}")


def _article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _join(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
