"""Kinds of argument that several commands take."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from live2diff.errors import UsageError

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


def add_device(command: argparse.ArgumentParser, default: str | None = "auto") -> None:
    command.add_argument("--device", default=default, help="auto, cpu or cuda (default: auto)")


def add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", metavar="FILE", help="write the figures there too")


def check_json(path: str | None) -> None:
    """Raises UsageError, before anything is measured, where `add_json`'s file could not be written."""
    if path and not os.path.isdir(os.path.dirname(os.path.abspath(path))):
        raise UsageError(f"--json {path}: no such folder")


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
    command.add_argument(
        "--overlap",
        action="store_true",
        help="on a GPU: encode a frame beside the UNet's work, for one frame more of delay",
    )


def switches_of(args: argparse.Namespace) -> Switches:
    from live2diff.stream.pipeline import Switches

    return Switches(args.compile, args.cuda_graph, args.kernel, args.memory, args.overlap)
