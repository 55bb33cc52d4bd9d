"""`live2diff eval`: measure translated videos, compare measurements."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from live2diff.errors import DataError, UsageError

if TYPE_CHECKING:
    from live2diff.eval.compare import Change
    from live2diff.eval.results import Figure, Results

_NAMED = 8  # names of videos in one line

_RUN = """\
Videos are paired by name: a video file's path in its folder without the suffix, or the path of a folder of
pictures. docs/evaluation.md says what every number is.

  live2diff eval run --source videos --pred outputs
  live2diff eval run --source videos --export exports/mine --metrics warp_error,flicker,latency
  live2diff eval run eval=davis --source DAVIS --export exports/mine clip_model=... depth_model=...
"""


def add(commands: argparse._SubParsersAction) -> None:
    group = commands.add_parser("eval", help="measure translated videos").add_subparsers(
        dest="eval", required=True
    )

    run = group.add_parser(
        "run",
        help="outputs against their sources: figures, a report",
        epilog=_RUN,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("settings", nargs="*", metavar="key=value", help="see conf/eval/default.yaml")
    run.add_argument("--source", metavar="DIR|DATASET", help="the videos that were translated")
    run.add_argument("--pred", metavar="DIR", help="what they became")
    run.add_argument("--export", metavar="EXPORT", help="instead: a model, which translates them first")
    run.add_argument("--metrics", metavar="A,B,…", help="see `live2diff eval list`")
    run.add_argument("--flow", metavar="dis|raft_large", help="optical flow for warp_error")
    run.add_argument("--out", metavar="DIR", help="default: outputs/eval/NAME, of --pred or --export")
    run.add_argument("--allow-skipped", action="store_true", help="exit with 0 also when videos were skipped")
    run.add_argument("--overwrite", action="store_true", help="replace results that exist")
    run.set_defaults(run=_run)

    compare = group.add_parser("compare", help="how figures changed from A to B, video by video")
    compare.add_argument("a", metavar="A.json", help="results.json of a run, or its folder")
    compare.add_argument("b", metavar="B.json")
    compare.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar='"warp_error>+5%%"',
        help="exit with 6 if the change is more than that, in per cent or in the figure's own unit; may be "
        "repeated",
    )
    compare.add_argument(
        "--allow-unequal", action="store_true", help="compare also figures whose signatures differ"
    )
    compare.set_defaults(run=_compare)

    show = group.add_parser("list", help="the metrics: what each is, its unit, what it needs")
    show.set_defaults(run=_list)

    caption = group.add_parser("caption", help="write a table of captions of the middle frames")
    caption.add_argument("settings", nargs="*", metavar="key=value", help="see conf/eval/default.yaml")
    caption.add_argument("--source", required=True, metavar="DIR|DATASET", help="the videos")
    caption.add_argument(
        "--captioner", required=True, metavar="MODEL", help="image-text-to-text model of transformers"
    )
    caption.add_argument("--prompt", help="what it is asked (default: for one short sentence)")
    caption.add_argument("--out", metavar="FILE.csv", help="default: what captions=FILE is set to")
    caption.set_defaults(run=_caption)


def _run(args: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    from live2diff.eval.run import evaluate
    from live2diff.eval.settings import EvalSettings
    from live2diff.eval.translate import Interrupted
    from live2diff.terminal import quiet_libraries

    quiet_libraries()
    words = list(args.settings)
    if args.metrics:
        words.append(f"metrics=[{args.metrics}]")
    if args.flow:
        words.append(f"flow={args.flow}")
    settings = EvalSettings.of(words)
    out = Path(args.out or Path("outputs/eval") / Path(args.pred or args.export or "results").name)
    try:
        found = evaluate(
            args.source,
            out,
            settings,
            pred=args.pred,
            export=args.export,
            overwrite=args.overwrite,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    except Interrupted as error:
        print(f"stopped early; the outputs until then are in {out / 'pred'}", file=sys.stderr)
        return error.code
    _show(found)
    print(f"\n{out / 'report.html'}: the report; {out / 'results.json'}: all numbers")
    if not found.figures:
        raise DataError("nothing could be measured; see the reasons above")
    if found.skipped and not args.allow_skipped:
        raise DataError("some videos were skipped, see above; --allow-skipped accepts that")
    print(f"next: live2diff eval compare {out / 'results.json'} OTHER/results.json")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from live2diff.eval.clips import printable
    from live2diff.eval.compare import FAILED, Condition, compare, left_out
    from live2diff.eval.results import read

    conditions = [Condition.parse(text) for text in args.fail_if]
    a, b = read(args.a), read(args.b)
    changes = compare(a, b, args.allow_unequal)
    print(f"A: {args.a}\nB: {args.b}\n")
    print("\n".join(_changes(changes)))
    for name, only in (("A", a.figures.keys() - b.figures), ("B", b.figures.keys() - a.figures)):
        if only:
            print(f"only in {name}: {', '.join(sorted(only))}")
    for name, videos in zip("AB", left_out(a, b), strict=True):
        if videos:
            more = f" and {len(videos) - _NAMED} more videos" if len(videos) > _NAMED else ""
            names = printable(", ".join(videos[:_NAMED])) + more
            print(f"warning: only in {name}, left out: {names}", file=sys.stderr)
    failed = [condition.text for condition in conditions if condition.holds(changes)]
    for text in failed:
        print(f"failed: {text}", file=sys.stderr)
    if not failed:
        print("\nnext: look at the report.html beside each file")
    return FAILED if failed else 0


def _list(args: argparse.Namespace) -> int:
    from live2diff.eval.catalogue import METRICS

    for name, entry in METRICS.items():
        print(f"{name}  needs: {entry.needs}")
        for kind in entry.kinds:
            unit = f", in {kind.unit}" if kind.unit else ""
            print(f"    {kind.name:<20}{kind.about}; {kind.better} is better{unit}")
    print("\nnext: live2diff eval run --source DIR --pred DIR --metrics warp_error,flicker")
    return 0


def _caption(args: argparse.Namespace) -> int:
    from live2diff.eval.captions import middle_frame, write_table
    from live2diff.eval.clips import printable
    from live2diff.eval.run import clips_of
    from live2diff.eval.settings import EvalSettings
    from live2diff.terminal import progress

    settings = EvalSettings.of(args.settings)
    out = args.out or settings.captions
    if out is None:
        raise UsageError("--out is missing: where the captions go, such as captions.csv")
    if Path(out).exists():
        raise UsageError(f"{out}: exists already; choose another --out or remove it")
    clips = clips_of(args.source, settings)
    # Found by name: the library does not depend on the tools built on it.
    captioner = importlib.import_module("data_prep.captioner").Captioner(
        args.captioner, args.prompt, settings.device
    )
    captions, failed = {}, []
    with progress("captions", len(clips), "videos") as advance:
        for clip in clips:
            try:
                captions[clip.name] = captioner(middle_frame(clip.address))
            except (UsageError, DataError) as error:
                failed.append(f"{clip.name}: {error}")
            advance()
    write_table(Path(out), captions)
    print(f"{out}: captions of {len(captions)} videos; read them, and correct what is wrong")
    for line in failed:
        print(printable(f"skipped {line}"), file=sys.stderr)
    if failed:
        raise DataError(f"{len(failed)} of {len(clips)} videos could not be read")
    print(f"next: live2diff eval run --source {args.source} --export EXPORT captions={out}")
    return 0


def _show(found: Results) -> None:
    from live2diff.eval.clips import printable

    for name, figure in found.figures.items():
        unit = f" {figure.unit}" if figure.unit else ""
        what = f"{figure.videos} videos, " if figure.videos else ""
        print(f"{name:<20}{figure.mean:.4g}{unit}{_interval(figure)}  {what}{figure.better} is better")
        if name == "warp_error":
            print(f"{'':<20}as the literature prints it: {1000 * figure.mean:.4g} x 10^-3")
    for skip in found.skipped:
        print(printable(f"skipped {skip.name}: {skip.reason}"), file=sys.stderr)


def _interval(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f" ({figure.low:.4g} to {figure.high:.4g}, 95 %)"


def _changes(changes: Sequence[Change]) -> list[str]:
    lines = [f"{'':<20}{'A':>12}{'B':>12}{'change':>12}{'':>10}  {'95 % interval':<26}verdict"]
    for change in changes:
        percent = "" if change.percent is None else f"{change.percent:+.1f} %"
        known = change.low is not None and change.high is not None
        span = f"{change.low:+.4g} to {change.high:+.4g}" if known else "none"
        over = f" over {change.videos} videos" if change.videos else ""
        unequal = f"; unequal: {', '.join(change.unequal)}" if change.unequal else ""
        lines.append(
            f"{change.figure:<20}{change.before:>12.5g}{change.after:>12.5g}{change.difference:>+12.4g}"
            f"{percent:>10}  {span:<26}{change.verdict}{over}{unequal}"
        )
    return lines
