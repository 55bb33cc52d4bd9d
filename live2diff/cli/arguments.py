"""Kinds of argument that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path


def is_setting(word: str) -> bool:
    return "=" in word and not word.startswith("-") and not Path(word).exists()


def size(text: str) -> tuple[int, int]:
    width, x, height = text.partition("x")
    if not (x and width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r}: write WIDTHxHEIGHT, like 512x512")
    return int(width), int(height)


def steps(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(step) for step in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write indices with commas, like 30,40") from None
