"""`live2diff bench`: figures of this machine."""

from __future__ import annotations

import argparse
import importlib
import os
import tempfile
from pathlib import Path

from live2diff.errors import UsageError

_REPEATS = 5  # of each measurement of reading, see train/bench_data.py
_PACKAGES = ("av", "opencv-python-headless", "decord", "torch", "numpy")


def add(commands: argparse._SubParsersAction) -> None:
    bench = commands.add_parser("bench", help="measure this machine").add_subparsers(
        dest="bench", required=True
    )
    data = bench.add_parser(
        "data", help="how fast a dataset is built and read, and how many workers keep a GPU busy"
    )
    data.add_argument("settings", nargs="*", metavar="key=value", help="see conf/prep/default.yaml")
    data.add_argument("--videos", metavar="DIR", help="a folder of videos (default: a few toy videos)")
    data.add_argument("--seconds", type=float, default=10, help="for each way of reading (default 10)")
    data.add_argument("--json", metavar="FILE", help="write the figures there too")
    data.set_defaults(run=_data)


def _data(args: argparse.Namespace) -> int:
    if not 0 < args.seconds <= 3600:
        raise UsageError(f"--seconds {args.seconds:g}: expected more than 0 and at most 3600")
    if args.json and not os.path.isdir(os.path.dirname(os.path.abspath(args.json))):
        raise UsageError(f"--json {args.json}: no such folder")
    from live2diff.files import write_json
    from live2diff.machine import describe
    from live2diff.terminal import quiet_libraries

    quiet_libraries()
    # Found by name: the library does not depend on the tools built on it.
    building = importlib.import_module("data_prep.bench")
    reading = importlib.import_module("train.bench_data")
    machine = describe(*_PACKAGES)
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']}; {versions}", flush=True)
    with tempfile.TemporaryDirectory(prefix="live2diff-bench-") as name:
        work = Path(name)
        sources = [args.videos] if args.videos else building.make_sources(work / "videos")
        settings = ["val_fraction=0", *args.settings]
        built = building.measure_build(sources, work / "dataset", settings)
        print("\nBuild\n" + "\n".join(building.build_lines(built)), flush=True)
        reading.make_model(work / "model")
        building.add_columns(work / "dataset", sources, settings, work / "model")
        originals = [Path(path) for path in built.pop("originals")]
        read = reading.measure_reading(work / "dataset", originals, args.seconds / _REPEATS)
        print("\nRead\n" + "\n".join(reading.reading_lines(read)), flush=True)
    if args.json:
        write_json(args.json, {"machine": machine, "build": built, "read": read})
        print(f"\nfigures: {args.json}")
    print("\nnext: set data.workers to the number of workers your GPU needs")
    return 0
