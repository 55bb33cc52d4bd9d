"""`live2diff data`: make datasets."""

from __future__ import annotations

import argparse
import importlib

from live2diff.cli.arguments import is_setting, size
from live2diff.errors import UsageError


def add(commands: argparse._SubParsersAction) -> None:
    data = commands.add_parser("data", help="make datasets").add_subparsers(dest="data", required=True)

    build = data.add_parser("build", help="videos -> WebDataset shards of clean, single-shot clips")
    build.add_argument("sources", nargs="+", metavar="SRC", help="a folder of videos, or a video")
    build.add_argument("--out", required=True, metavar="DIR", help="the dataset's folder; rerun to continue")
    build.add_argument("settings", nargs="*", metavar="key=value", help="see conf/prep/default.yaml")
    build.set_defaults(run=_build)

    toy = data.add_parser("toy", help="render videos of the toy world")
    toy.add_argument("--out", required=True, metavar="DIR")
    toy.add_argument("--count", type=int, default=32, help="videos (default 32)")
    toy.add_argument("--seconds", type=float, default=4.0)
    toy.add_argument("--fps", type=int, default=8)
    toy.add_argument("--size", type=size, default=(96, 96), metavar="WxH")
    toy.add_argument("--look", default="cartoon", help="cartoon or photo (default cartoon)")
    toy.add_argument("--split", default="train", help="train or test: scenes of one are never in the other")
    toy.set_defaults(run=_toy)


def _build(args: argparse.Namespace) -> int:
    # argparse gives all words before --out to the sources.
    settings = [word for word in args.sources if is_setting(word)]
    sources = [word for word in args.sources if word not in settings]
    # Found by name: the library does not depend on the tools built on it.
    return importlib.import_module("data_prep.build").main(
        [*sources, "--out", args.out, *settings, *args.settings]
    )


def _toy(args: argparse.Namespace) -> int:
    from live2diff import toy

    if args.split not in toy.SPLITS:
        raise UsageError(f"--split {args.split}: expected one of {', '.join(toy.SPLITS)}")
    if args.count < 1 or not 0 < args.seconds < 3600 or args.fps < 1:
        raise UsageError("--count and --fps must be 1 or more, --seconds above 0 and below 3600")
    paths = toy.write_videos(
        args.out,
        args.count,
        seed=toy.SPLITS[args.split],
        seconds=args.seconds,
        fps=args.fps,
        size=args.size,
        look=args.look,
    )
    print(f"{len(paths)} videos with captions and depth in {args.out}")
    print(f"next: live2diff data build {args.out} --out DATASET prep=tiny")
    return 0
