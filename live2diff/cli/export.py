"""`live2diff export`."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction) -> None:
    export = commands.add_parser("export", help="a training run -> a folder that streams")
    export.add_argument("run_dir", metavar="RUN", help="the run's folder; its newest checkpoint is taken")
    export.add_argument("--out", required=True, metavar="DIR")
    export.add_argument("--overwrite", action="store_true", help="replace DIR if it exists")
    export.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from live2diff.interop.export import export
    from live2diff.terminal import quiet_libraries

    quiet_libraries()
    export(args.run_dir, args.out, overwrite=args.overwrite)
    print(f"exported to {args.out}")
    print(f'next: live2diff stream {args.out} --input VIDEO --output OUT.mp4 --prompt "..."')
    return 0
