"""`live2diff train`."""

from __future__ import annotations

import argparse
import importlib


def add(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser("train", help="train; rerun the same command to continue")
    train.add_argument(
        "settings", nargs="*", metavar="key=value", help="experiment=NAME and others, see conf/"
    )
    train.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    return importlib.import_module("train.run").train(args.settings)
