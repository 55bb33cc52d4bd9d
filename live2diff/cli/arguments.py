"""Kinds of argument that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from live2diff.stream.pipeline import Switches


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


def add_switches(command: argparse.ArgumentParser) -> None:
    """How a stream's work is done; see `live2diff.stream.pipeline.Switches`."""
    command.add_argument(
        "--compile", action="store_true", help="compile the work of a frame first: minutes, then faster"
    )
    command.add_argument("--cuda-graph", action="store_true", help="record it once and replay it, on a GPU")
    command.add_argument(
        "--kernel", choices=("torch", "triton"), default="torch", help="of temporal attention"
    )
    command.add_argument(
        "--memory", choices=("exact", "int8"), default="exact", help="int8 halves what past frames take"
    )


def switches_of(args: argparse.Namespace) -> Switches:
    from live2diff.stream.pipeline import Switches

    return Switches(args.compile, args.cuda_graph, args.kernel, args.memory)
