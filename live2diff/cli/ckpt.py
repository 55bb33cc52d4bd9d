"""`live2diff ckpt`: look at checkpoints, and turn them into others."""

from __future__ import annotations

import argparse
from typing import Any

_DTYPES = ("fp32", "fp16", "bf16")
FORMATS = (
    "motion-adapter",
    "animatediff",
    "official",
    "depth-branch",
    "lora-diffusers",
    "lora-kohya",
    "lora-animatediff",
)


def add(commands: argparse._SubParsersAction) -> None:
    ckpt = commands.add_parser("ckpt", help="inspect, compare, convert and verify checkpoints")
    group = ckpt.add_subparsers(dest="ckpt", required=True, metavar="COMMAND")

    inspect = _command(group, "inspect", _inspect, "what a file or folder is; nothing in it is run")
    inspect.add_argument("path", metavar="FILE|DIR")

    diff = _command(group, "diff", _diff, "what differs between two files or folders, tensor by tensor")
    diff.add_argument("first", metavar="A")
    diff.add_argument("second", metavar="B")
    diff.add_argument("--most", type=int, default=10, metavar="N", help="names to show of each kind")

    convert = _command(group, "convert", _convert, "an export -> a format that other tools read")
    convert.add_argument("export", metavar="EXPORT", help="an exported model; for lora-... a run")
    convert.add_argument("--to", required=True, choices=FORMATS, metavar="FORMAT", help=", ".join(FORMATS))
    convert.add_argument("--out", required=True, metavar="PATH", help="a new .safetensors, .ckpt or folder")
    convert.add_argument("--dtype", choices=_DTYPES, help="default: as the export is stored")

    merge = _command(
        group, "merge-lora", _merge_lora, "an export and LoRA -> an export with them in its weights"
    )
    merge.add_argument("export", metavar="EXPORT")
    merge.add_argument(
        "--lora", action="append", required=True, metavar="FILE[:SCALE]", help="may be given several times"
    )
    merge.add_argument(
        "--embedding", action="append", default=[], metavar="FILE", help="a textual inversion to add as well"
    )
    merge.add_argument("--out", required=True, metavar="DIR")
    merge.add_argument("--overwrite", action="store_true", help="replace DIR if it is an export")

    ema = _command(group, "extract-ema", _extract_ema, "the average of the weights as a file of its own")
    ema.add_argument("source", metavar="RUN|FILE", help="a run, a checkpoint, or an SD file with model_ema.")
    ema.add_argument("--out", required=True, metavar="FILE.safetensors")

    verify = _command(group, "verify", _verify, "check an export's hashes and measure its certificate again")
    verify.add_argument("export", metavar="EXPORT")


def _command(group: Any, name: str, run: Any, words: str) -> argparse.ArgumentParser:
    parser = group.add_parser(name, help=words, description=f"{words[0].upper()}{words[1:]}.")
    parser.set_defaults(run=run)
    return parser


def _inspect(args: argparse.Namespace) -> int:
    from live2diff.interop.inspect import inspect

    print("\n".join(inspect(args.path)))
    return 0


def _diff(args: argparse.Namespace) -> int:
    from live2diff.interop.compare import compare

    print("\n".join(compare(args.first, args.second).lines(max(args.most, 1))))
    return 0


def _convert(args: argparse.Namespace) -> int:
    from live2diff.interop.convert import convert
    from live2diff.terminal import quiet_libraries

    quiet_libraries()
    lacks = convert(args.export, args.to, args.out, dtype=args.dtype)
    print(f"{args.out}: {args.to}")
    for lack in lacks:
        print(f"  it does not hold {lack}")
    print(f"next: live2diff ckpt inspect {args.out}")
    return 0


def _merge_lora(args: argparse.Namespace) -> int:
    from live2diff.interop.certificate import summary
    from live2diff.interop.lora.merge import merge_into_export, parse_lora
    from live2diff.terminal import quiet_libraries

    quiet_libraries()
    loras = [parse_lora(lora) for lora in args.lora]
    certificate = merge_into_export(
        args.export, loras, args.out, embeddings=args.embedding, overwrite=args.overwrite
    )
    print(f"{args.out}: {args.export} with {len(loras)} LoRA in its weights")
    print(summary(certificate))
    print(f'next: live2diff stream {args.out} --input VIDEO --output OUT.mp4 --prompt "..."')
    return 0


def _extract_ema(args: argparse.Namespace) -> int:
    from live2diff.interop.average import extract_ema

    count = extract_ema(args.source, args.out)
    print(f"{args.out}: {count} averaged tensors")
    print(f"next: live2diff ckpt inspect {args.out}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from live2diff.interop.certificate import certify, summary
    from live2diff.terminal import quiet_libraries

    quiet_libraries()
    certificate = certify(args.export)
    print(f"{args.export}: {len(certificate['files'])} files have the hashes in config.json")
    print(summary(certificate))
    if certificate["certified"]:
        print(f'next: live2diff stream {args.export} --input VIDEO --output OUT.mp4 --prompt "..."')
    return 0
