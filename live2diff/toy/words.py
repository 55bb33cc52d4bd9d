"""The toy world's vocabulary for CLIP's tokenizer: one token for every word of a caption.

Byte-pair encoding, learnt from the words themselves: pairs of symbols are merged until each word is whole.
Other words fall apart into characters, and into the pieces that toy words are made of.
"""

from __future__ import annotations

from live2diff.toy.looks import LOOKS
from live2diff.toy.scene import COLOURS
from live2diff.toy.shapes import PATTERNS, SHAPES

WORDS = ("a", "an", "of", "and", "on", ",", *LOOKS, *COLOURS, *SHAPES, *PATTERNS)
_END = "</w>"  # CLIP's mark of a word's last symbol


def merges() -> list[tuple[str, str]]:
    """Pairs of symbols in the order in which they are merged."""
    words = [[*word[:-1], word[-1] + _END] for word in WORDS]
    found: list[tuple[str, str]] = []
    while pending := [word for word in words if len(word) > 1]:
        pair = pending[0][0], pending[0][1]
        found.append(pair)
        words = [_merged(word, pair) for word in words]
    return found


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    symbols: list[str] = []
    for symbol in word:
        if symbols and (symbols[-1], symbol) == pair:
            symbols[-1] += symbol
        else:
            symbols.append(symbol)
    return symbols
