"""`live2diff train`."""

from __future__ import annotations

import argparse
import importlib

_MORE = """\
  live2diff train experiment=tiny data.path=data/mine                 again: goes on where it stopped
  live2diff train experiment=tiny data.path=data/mine --dry-run       the plan: sizes, memory, what is missing
  live2diff train experiment=tiny data.path=data/mine debug=overfit   does the loss fall on four clips?
  torchrun --nproc-per-node 8 -m train experiment=stage1_mask data.path=data/mine

experiment and debug are files in conf/; docs/training.md says what each is for.
"""


def add(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser(
        "train",
        help="train; rerun the same command to continue",
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    train.add_argument(
        "settings", nargs="*", metavar="key=value", help="experiment=NAME and others, see conf/"
    )
    train.add_argument(
        "--dry-run",
        action="store_true",
        help="say what the run would do, need and lack; train nothing and write nothing",
    )
    train.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    if args.dry_run:
        return importlib.import_module("train.plan").dry_run(args.settings)
    return importlib.import_module("train.run").train(args.settings)
