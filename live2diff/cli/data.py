"""`live2diff data`: make datasets and look at them."""

from __future__ import annotations

import argparse
import importlib

from live2diff.cli.arguments import is_setting, size
from live2diff.errors import UsageError

_BUILD = """\
SRC is any of: a folder, searched recursively for videos and tars; a glob in quotes ('clips/**/*.mp4');
a table (.csv .tsv .jsonl .parquet) with the columns path and caption; a WebDataset .tar; a video. All may
be URLs that fsspec opens. docs/dataset.md says more.

  live2diff data build videos --out data/mine                       again: goes on where it stopped
  live2diff data build list.csv --out data/mine caption_column=text
  live2diff data build videos --out data/mine --slice 0/4           on each of 4 machines, 0/4 to 3/4 ...
  live2diff data build --merge --out data/mine                      ... and once at the end
"""


def add(commands: argparse._SubParsersAction) -> None:
    data = commands.add_parser("data", help="make datasets, look at them").add_subparsers(
        dest="data", required=True
    )

    build = data.add_parser(
        "build",
        help="videos -> WebDataset shards of clean, single-shot clips",
        epilog=_BUILD,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    build.add_argument("sources", nargs="*", metavar="SRC", help="where the videos are, see below")
    build.add_argument("--out", required=True, metavar="DIR", help="the dataset's folder; rerun to continue")
    build.add_argument("settings", nargs="*", metavar="key=value", help="see conf/prep/default.yaml")
    build.add_argument("--slice", metavar="I/N", help="only every N-th shard, from the I-th, counted from 0")
    build.add_argument("--merge", action="store_true", help="all slices are done: write index and totals")
    build.add_argument(
        "--new-version",
        action="store_true",
        help="if DIR was begun with other settings or sources, use DIR-v2, -v3, ...",
    )
    build.add_argument("--json", action="store_true", help="print one JSON object per line")
    build.set_defaults(run=_build)

    check = data.add_parser("check", help="is a dataset whole? hashes, counts, key order, a sample decoded")
    check.add_argument("dataset", metavar="DIR")
    check.add_argument("--json", action="store_true", help="print one JSON object")
    check.add_argument("--samples", type=int, default=64, metavar="N", help="clips to decode (default 64)")
    check.set_defaults(run=_check)

    report = data.add_parser("report", help="one offline HTML page: pictures, histograms, what was rejected")
    report.add_argument("dataset", metavar="DIR")
    report.add_argument("--out", metavar="FILE", help="default: DIR/report.html")
    report.set_defaults(run=_report)

    show = data.add_parser("show", help="one clip as a strip of pictures")
    show.add_argument("dataset", metavar="DIR")
    show.add_argument("key", metavar="KEY", help="of the clip, see index.parquet")
    show.add_argument("--out", metavar="PNG", help="default: KEY.png")
    show.set_defaults(run=_show)

    toy = data.add_parser("toy", help="render videos of the toy world")
    toy.add_argument("--out", required=True, metavar="DIR")
    toy.add_argument("--count", type=int, default=32, help="videos (default 32)")
    toy.add_argument("--seconds", type=float, default=4.0)
    toy.add_argument("--fps", type=int, default=8)
    toy.add_argument("--size", type=size, default=(96, 96), metavar="WxH")
    toy.add_argument("--look", default="cartoon", help="photo, cartoon or drawing (default cartoon)")
    toy.add_argument(
        "--split", default="train", help="train, val or test: scenes of one are never in another"
    )
    toy.set_defaults(run=_toy)


# The tools are found by name: the library does not depend on what is built on it.


def _build(args: argparse.Namespace) -> int:
    # argparse gives all words before --out to the sources.
    settings = [word for word in args.sources if is_setting(word) and "://" not in word.partition("=")[0]]
    sources = [word for word in args.sources if word not in settings]
    return importlib.import_module("data_prep.build").run(
        sources,
        args.out,
        [*settings, *args.settings],
        part=args.slice,
        only_merge=args.merge,
        new_version=args.new_version,
        as_json=args.json,
    )


def _check(args: argparse.Namespace) -> int:
    return importlib.import_module("data_prep.check").run(args.dataset, args.json, args.samples)


def _report(args: argparse.Namespace) -> int:
    return importlib.import_module("data_prep.report").run(args.dataset, args.out)


def _show(args: argparse.Namespace) -> int:
    return importlib.import_module("data_prep.show").run(args.dataset, args.key, args.out)


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
