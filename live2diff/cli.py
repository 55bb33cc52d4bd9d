"""The `live2diff` command. Thin: it reads arguments, calls the library, and turns errors into one line.

Nothing heavy is imported until a command runs, so that --help answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from live2diff import __version__
from live2diff.errors import Live2DiffError, SetupError, UsageError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (see `live2diff.errors`)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        parsed, rest = _parser().parse_known_args(arguments)
        odd = [word for word in rest if not _is_setting(word) or not hasattr(parsed, "settings")]
        if odd:
            raise UsageError(f"unknown argument {odd[0]!r}; see live2diff {parsed.command} --help")
        if rest:  # key=value after an option, where argparse no longer expects it
            parsed.settings += rest
        return parsed.run(parsed)
    except Live2DiffError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return SetupError.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="live2diff", description="Train, fine-tune and stream causal video diffusion models."
    )
    parser.add_argument("--version", action="version", version=f"live2diff {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_data(commands)
    _add_train(commands)
    _add_export(commands)
    _add_stream(commands)
    return parser


# -- data ------------------------------------------------------------------------------------------------


def _add_data(commands: argparse._SubParsersAction) -> None:
    data = commands.add_parser("data", help="make datasets").add_subparsers(dest="data", required=True)

    build = data.add_parser("build", help="videos -> WebDataset shards of clean, single-shot clips")
    build.add_argument("sources", nargs="+", metavar="SRC", help="a folder of videos, or a video")
    build.add_argument("--out", required=True, metavar="DIR", help="the dataset's folder; rerun to continue")
    build.add_argument("settings", nargs="*", metavar="key=value", help="see conf/prep/default.yaml")
    build.set_defaults(run=_data_build)

    toy = data.add_parser("toy", help="render videos of the toy world")
    toy.add_argument("--out", required=True, metavar="DIR")
    toy.add_argument("--count", type=int, default=32, help="videos (default 32)")
    toy.add_argument("--seconds", type=float, default=4.0)
    toy.add_argument("--fps", type=int, default=8)
    toy.add_argument("--size", type=_size, default=(96, 96), metavar="WxH")
    toy.add_argument("--look", default="cartoon", help="cartoon or photo (default cartoon)")
    toy.add_argument("--split", default="train", help="train or test: scenes of one are never in the other")
    toy.set_defaults(run=_data_toy)


def _data_build(args: argparse.Namespace) -> int:
    # argparse gives all words before --out to the sources.
    settings = [word for word in args.sources if _is_setting(word)]
    sources = [word for word in args.sources if word not in settings]
    # Found by name: the library does not depend on the tools built on it.
    return importlib.import_module("data_prep.build").main(
        [*sources, "--out", args.out, *settings, *args.settings]
    )


def _data_toy(args: argparse.Namespace) -> int:
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


# -- train -----------------------------------------------------------------------------------------------


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = commands.add_parser("train", help="train; rerun the same command to continue")
    train.add_argument(
        "settings", nargs="*", metavar="key=value", help="experiment=NAME and others, see conf/"
    )
    train.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> int:
    return importlib.import_module("train.run").train(args.settings)


# -- export ----------------------------------------------------------------------------------------------


def _add_export(commands: argparse._SubParsersAction) -> None:
    export = commands.add_parser("export", help="a training run -> a folder that streams")
    export.add_argument("run_dir", metavar="RUN", help="the run's folder; its newest checkpoint is taken")
    export.add_argument("--out", required=True, metavar="DIR")
    export.add_argument("--overwrite", action="store_true", help="replace DIR if it exists")
    export.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    from live2diff.interop.export import export
    from live2diff.terminal import quiet_libraries

    quiet_libraries()
    export(args.run_dir, args.out, overwrite=args.overwrite)
    print(f"exported to {args.out}")
    print(f'next: live2diff stream {args.out} --input VIDEO --output OUT.mp4 --prompt "..."')
    return 0


# -- stream ----------------------------------------------------------------------------------------------


def _add_stream(commands: argparse._SubParsersAction) -> None:
    stream = commands.add_parser("stream", help="translate a video, frame by frame")
    stream.add_argument("export", metavar="EXPORT", help="an exported model, or a training run")
    stream.add_argument("--input", required=True, metavar="VIDEO")
    stream.add_argument("--output", required=True, metavar="OUT.mp4")
    stream.add_argument("--prompt", default="", help="what the output shows")
    stream.add_argument("--steps", type=_steps, metavar="I,J,…", help="denoising steps, indices of 0 to 49")
    stream.add_argument("--size", type=_size, metavar="WxH", help="multiples of 8 (default: as trained)")
    stream.add_argument("--seed", type=int, default=0)
    stream.add_argument(
        "--noise", choices=("fresh", "fixed"), default="fresh", help="per frame, or one for all"
    )
    stream.add_argument("--device", default="auto", help="auto, cpu or cuda")
    stream.add_argument("--side-by-side", metavar="OUT.png", help="also a picture of input and output frames")
    stream.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    stream.set_defaults(run=_stream)


def _stream(args: argparse.Namespace) -> int:
    from live2diff.stream.files import translate
    from live2diff.terminal import quiet_libraries

    quiet_libraries()
    translate(
        args.export,
        args.input,
        args.output,
        prompt=args.prompt,
        steps=args.steps,
        size=args.size,
        seed=args.seed,
        noise=args.noise,
        device=args.device,
        side_by_side=args.side_by_side,
        overwrite=args.overwrite,
    )
    return 0


# -- arguments -------------------------------------------------------------------------------------------


def _is_setting(word: str) -> bool:
    return "=" in word and not word.startswith("-") and not Path(word).exists()


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.partition("x")
    if not (x and width.isdigit() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r}: write WIDTHxHEIGHT, like 512x512")
    return int(width), int(height)


def _steps(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(step) for step in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: write indices with commas, like 30,40") from None


if __name__ == "__main__":
    sys.exit(main())
