"""`live2diff stream`."""

from __future__ import annotations

import argparse

from live2diff.cli.arguments import size, steps


def add(commands: argparse._SubParsersAction) -> None:
    stream = commands.add_parser("stream", help="translate a video, frame by frame")
    stream.add_argument("export", metavar="EXPORT", help="an exported model, or a training run")
    stream.add_argument("--input", required=True, metavar="VIDEO")
    stream.add_argument("--output", required=True, metavar="OUT.mp4")
    stream.add_argument("--prompt", default="", help="what the output shows")
    stream.add_argument("--steps", type=steps, metavar="I,J,…", help="denoising steps, indices of 0 to 49")
    stream.add_argument("--size", type=size, metavar="WxH", help="multiples of 8 (default: as trained)")
    stream.add_argument("--seed", type=int, default=0)
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
