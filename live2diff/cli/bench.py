"""`live2diff bench`: figures of this machine."""

from __future__ import annotations

import argparse
import importlib
import resource
import tempfile
from pathlib import Path

from live2diff.cli import bench_stream
from live2diff.cli.arguments import add_device, add_json, check_json
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
    add_json(data)
    data.set_defaults(run=_data)
    train = bench.add_parser(
        "train", help="our training step against a plain one, on the same data and weights"
    )
    train.add_argument("--model", choices=("tiny", "sd15"), default="tiny", help="sizes (default: tiny)")
    train.add_argument("--size", type=int, help="side of the frames, pixels (default: 64, or 256 for sd15)")
    train.add_argument("--frames", type=int, default=16, help="of a clip (default: 16)")
    train.add_argument("--batch", type=int, default=1, help="clips per step (default: 1)")
    train.add_argument("--steps", type=int, default=10, help="measured steps of each loop (default: 10)")
    train.add_argument("--compile", action="store_true", help="also our step compiled; takes minutes")
    train.add_argument(
        "--checkpointing",
        action=argparse.BooleanOptionalAction,
        help="gradient checkpointing in both (default: for sd15)",
    )
    add_device(train)
    add_json(train)
    train.set_defaults(run=_train)
    bench_stream.add(bench)


def _data(args: argparse.Namespace) -> int:
    if not 0 < args.seconds <= 3600:
        raise UsageError(f"--seconds {args.seconds:g}: expected more than 0 and at most 3600")
    check_json(args.json)
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


def _train(args: argparse.Namespace) -> int:
    size = args.size or (256 if args.model == "sd15" else 64)
    _check_train(args, size)
    checkpointing = args.model == "sd15" if args.checkpointing is None else args.checkpointing
    from live2diff.devices import find_device
    from live2diff.files import write_json
    from live2diff.machine import describe
    from live2diff.terminal import quiet_libraries

    device = find_device(args.device, "--device")
    quiet_libraries()
    building = importlib.import_module("data_prep.bench")
    bench = importlib.import_module("train.bench")
    machine = describe("torch", "diffusers", "transformers", "lightning")
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load']}; {versions}", flush=True)
    what = {
        "model": args.model,
        "size": size,
        "frames": args.frames,
        "batch": args.batch,
        "steps": args.steps,
        "compile": args.compile,
        "checkpointing": checkpointing,
    }
    with tempfile.TemporaryDirectory(prefix="live2diff-bench-") as name:
        work = Path(name)
        print("making clips and their columns", flush=True)
        bench.save_parts(args.model, work / "parts", size)
        building.make_clips(work / "videos", args.batch, args.frames, size)
        building.make_columns(work / "videos", work / "dataset", args.frames, size, work / "parts")
        config = bench.settings(
            args.model,
            work / "dataset",
            size=size,
            frames=args.frames,
            batch=args.batch,
            checkpointing=checkpointing,
        )
        print(f"{args.steps} steps of each loop, {size} pixels, {args.frames} frames", flush=True)
        result = bench.measure(config, work / "parts", args.model, args.steps, device, args.compile)
    result["peak_memory_gb"] = round(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9, 2)
    print("\n".join(["", *bench.lines(result)]))
    print(f"memory of this process at most {result['peak_memory_gb']:.1f} GB")
    if args.json:
        write_json(args.json, {"machine": machine, "what": what, **result})
        print(f"\nfigures: {args.json}")
    print("\nnext: live2diff train experiment=stage1_mask data.path=DATASET")
    return 0


def _check_train(args: argparse.Namespace, size: int) -> None:
    for name in ("batch", "steps"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name} {getattr(args, name)}: expected 1 or more")
    if (
        not 9 <= args.frames <= 24
    ):  # more than the warm-up, and no more than the plain model has encodings for
        raise UsageError(f"--frames {args.frames}: expected 9 to 24")
    if size < 32 or size % 32:
        raise UsageError(f"--size {size}: expected a multiple of 32")
    check_json(args.json)
