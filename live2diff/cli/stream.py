"""`live2diff stream`."""

from __future__ import annotations

import argparse

from live2diff.cli.arguments import size, steps


def add(commands: argparse._SubParsersAction) -> None:
    stream = commands.add_parser("stream", help="translate a video or a camera, frame by frame")
    stream.add_argument("export", metavar="EXPORT", help="an exported model, or a training run")
    stream.add_argument("--input", required=True, metavar="FILE|camera:N", help="a video, or the Nth camera")
    stream.add_argument(
        "--output",
        required=True,
        metavar="OUT",
        help="an .mp4 or .mkv with the input's sound, a folder for numbered PNGs, or - for YUV4MPEG2 on "
        "standard output, to be piped into ffplay or ffmpeg",
    )
    stream.add_argument("--prompt", default="", help="what the output shows")
    stream.add_argument("--steps", type=steps, metavar="I,J,…", help="denoising steps, indices of 0 to 49")
    stream.add_argument(
        "--strength",
        type=float,
        metavar="S",
        help="instead of --steps: how far from the input, above 0 to 1; the paper's steps are 0.4",
    )
    stream.add_argument("--size", type=size, metavar="WxH", help="multiples of 8 (default: as trained)")
    stream.add_argument(
        "--fit",
        choices=("crop", "pad", "stretch"),
        default="crop",
        help="what happens to frames of another shape (default: crop)",
    )
    stream.add_argument("--seed", type=int, default=0, help="same seed, same video (default: 0)")
    stream.add_argument(
        "--noise", choices=("fresh", "fixed"), default="fresh", help="per frame, or one for all"
    )
    stream.add_argument("--device", default="auto", help="auto, cpu or cuda")
    stream.add_argument("--side-by-side", metavar="OUT.png", help="also a picture of input and output frames")
    stream.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    stream.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from live2diff.stream.files import translate
    from live2diff.terminal import quiet_libraries

    quiet_libraries()
    return translate(
        args.export,
        args.input,
        args.output,
        prompt=args.prompt,
        steps=args.steps,
        strength=args.strength,
        size=args.size,
        how=args.fit,
        seed=args.seed,
        noise=args.noise,
        device=args.device,
        side_by_side=args.side_by_side,
        overwrite=args.overwrite,
    )
