"""`live2diff export`."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    export = commands.add_parser("export", help="a training run -> a certified folder that streams")
    export.add_argument("run_dir", metavar="RUN", help="the run's folder; its newest checkpoint is taken")
    export.add_argument("--out", required=True, metavar="DIR")
    export.add_argument(
        "--dtype",
        choices=("fp32", "fp16", "bf16"),
        default="fp32",
        help="how weights are stored (default fp32)",
    )
    export.add_argument(
        "--weights",
        choices=("raw", "ema"),
        default="raw",
        help="trained weights, or their average (default raw)",
    )
    export.add_argument("--overwrite", action="store_true", help="replace DIR if it exists")
    export.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from live2diff.interop.certificate import summary
    from live2diff.interop.export import export
    from live2diff.terminal import quiet_libraries

    quiet_libraries()
    certificate = export(
        args.run_dir, args.out, dtype=args.dtype, weights=args.weights, overwrite=args.overwrite
    )
    print(f"exported to {args.out}")
    print(summary(certificate))
    if not certificate["certified"]:
        print(f"next: live2diff train experiment=stage1_mask model.saved={args.out} data.path=DATASET")
        return 0
    print(f'next: live2diff stream {args.out} --input VIDEO --output OUT.mp4 --prompt "..."')
    return 0
