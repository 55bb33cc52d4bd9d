"""`live2diff bench stream`."""

from __future__ import annotations

import argparse
import sys

from live2diff.cli.arguments import add_device, add_json, add_switches, check_json, size, steps, switches_of
from live2diff.errors import UsageError


def add(bench: argparse._SubParsersAction) -> None:
    stream = bench.add_parser(
        "stream", help="how fast a stream is here, beside other ways to compute the same on the same weights"
    )
    stream.add_argument("--model", choices=("tiny", "sd15"), default="tiny", help="sizes; weights are random")
    stream.add_argument("--size", type=size, nargs="+", default=[(256, 256)], metavar="WxH")
    stream.add_argument(
        "--rows", type=steps, default=(1, 2, 4), metavar="T,…", help="denoising steps (default 1,2,4)"
    )
    stream.add_argument("--frames", type=int, default=20, help="timed for each figure (default 20)")
    stream.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32")
    add_device(stream)
    stream.add_argument("--threads", type=int, help="of the processor (default: PyTorch's choice)")
    stream.add_argument(
        "--rivals", default="listing,no_cache,chunks", metavar="A,…", help="which others; '' for none"
    )
    add_switches(stream)
    add_json(stream)
    stream.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    check_json(args.json)
    if args.threads is not None and not 1 <= args.threads <= 1024:
        raise UsageError(f"--threads {args.threads}: expected 1 to 1024")
    import torch

    from live2diff.bench import stream as bench
    from live2diff.bench.meter import Meter
    from live2diff.bench.models import make_model
    from live2diff.bench.show import show, stream_table, unet_table
    from live2diff.devices import find_device
    from live2diff.files import write_json
    from live2diff.machine import describe
    from live2diff.model.folder import DTYPES
    from live2diff.terminal import progress, quiet_libraries

    quiet_libraries()
    rivals = [name for name in args.rivals.split(",") if name]
    bench.check(args.rows, args.size, rivals, args.frames)
    device = find_device(args.device, "--device")
    switches = switches_of(args)
    switches.check(device)
    if args.threads:
        torch.set_num_threads(args.threads)
    dtype = DTYPES[args.dtype]
    machine = describe("torch", "diffusers", "triton")
    machine |= {"threads": torch.get_num_threads(), "command": " ".join(["live2diff", *sys.argv[1:]])}
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    place = machine.get("gpu") or f"{machine['cpu']}, {machine['threads']} threads, load {machine['load']}"
    print(f"{place}; {versions}", flush=True)
    model = make_model(args.model, device, dtype)
    cases = [bench.Case(rows, side) for side in args.size for rows in args.rows]
    streams, unets = [], []
    with progress("measuring", 2 * len(cases), "measurements") as advance:
        for case in cases:
            streams.append(bench.measure_stream(model, case, args.frames, switches))
            advance()
        ceilings = Meter(device).ceilings(dtype)
        for case in cases:
            unets += bench.measure_unet(model, case, args.frames, switches, rivals, ceilings)
            advance()
    print(
        f"{args.model}, {args.dtype}; at best {ceilings['tflops']:.3g} TFLOP/s in a product, "
        f"{ceilings['gb_per_s']:.3g} GB/s in a copy"
    )
    show(stream_table(streams), unet_table(unets))
    print(
        f"Not counted: the warm-up, {bench.EXCLUDED} ticks after it, and one call of each way that is timed "
        "more than once (in brackets: how often it was)."
    )
    if args.json:
        figures = {"machine": machine, "ceilings": ceilings, "stream": streams, "unet": unets}
        write_json(args.json, {"model": args.model, "dtype": args.dtype, **figures})
        print(f"figures: {args.json}")
    print("next: live2diff stream EXPORT --input FILE --output FILE, with the switches that were fastest")
    return 0
