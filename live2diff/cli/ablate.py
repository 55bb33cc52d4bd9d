"""`live2diff ablate`: the paper's ablations, rerun in the toy world."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from live2diff.errors import UsageError

_MORE = """\
  table2   A plain causal mask; B warm-up mask, streamed without; C warm-up mask; D with depth;
           and C+, C trained on for as long as D
  table3   a stream with and without its cache of keys and values; nothing is trained
  table4   4 warm-up frames against 8

  live2diff ablate table2 --budget 60                  an hour of training; again: goes on where it stopped
  live2diff ablate table4                              in the same folder: as many updates, and row C is there

Everything starts from the weights that come with the package. docs/ablations.md says what is measured.
"""


def add(commands: argparse._SubParsersAction) -> None:
    ablate = commands.add_parser(
        "ablate",
        help="rerun the paper's ablations in the toy world",
        epilog=_MORE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ablate.add_argument("table", choices=("table2", "table3", "table4"), metavar="TABLE", help="see below")
    ablate.add_argument("settings", nargs="*", metavar="key=value", help="see conf/ablate/default.yaml")
    ablate.add_argument(
        "--budget", type=float, metavar="MINUTES", help="of training in all: chooses the updates"
    )
    ablate.add_argument("--updates", type=int, metavar="N", help="instead: of stage 1, the same in every row")
    ablate.add_argument(
        "--stage2-updates", type=int, metavar="M", help="of stage 2, rows D and C+ (default: 2 x N)"
    )
    ablate.add_argument("--seeds", type=int, metavar="S", help="trainings of every row (default 3)")
    ablate.add_argument(
        "--out", metavar="DIR", default="outputs/ablate", help="rerun to continue (default outputs/ablate)"
    )
    ablate.add_argument("--overwrite", action="store_true", help="replace what DIR holds of another ablation")
    ablate.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    words = list(args.settings)
    given = {"updates": args.updates, "stage2_updates": args.stage2_updates, "seeds": args.seeds}
    words += [f"{key}={value}" for key, value in given.items() if value is not None]
    if args.budget is not None:
        if args.table == "table3":
            raise UsageError("--budget: table3 trains nothing; leave it out")
        if not 0 < args.budget < float("inf"):
            raise UsageError(f"--budget {args.budget:g}: expected minutes, more than 0")
        if any(word.startswith(("updates=", "stage2_updates=")) for word in words):
            raise UsageError("--budget chooses the updates; leave out --updates and --stage2-updates")
    # Found by name: the library does not depend on the tools built on it, nor they on each other.
    return importlib.import_module("train.ablate.run").ablate(
        args.table,
        Path(args.out),
        words,
        budget=args.budget,
        overwrite=args.overwrite,
        build_dataset=importlib.import_module("data_prep.build").build,
    )
