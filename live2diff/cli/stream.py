"""`live2diff stream`."""

from __future__ import annotations

import argparse

from live2diff.cli.arguments import add_device, add_switches, size, steps, switches_of
from live2diff.errors import UsageError


def add(commands: argparse._SubParsersAction) -> None:
    stream = commands.add_parser(
        "stream",
        help="translate a video or a camera, frame by frame",
        usage="live2diff stream EXPORT --input FILE|camera:N --output OUT [options]\n"
        "       live2diff stream replay SESSION [--output OUT] [--model EXPORT] [--device D] [--overwrite]",
    )
    stream.add_argument("export", metavar="EXPORT", help="an exported model, or a training run; or: replay")
    stream.add_argument("session", nargs="?", help="after `replay`: a folder that --record made")
    stream.add_argument("--input", metavar="FILE|camera:N", help="a video, or the Nth camera")
    stream.add_argument(
        "--output",
        metavar="OUT",
        help="an .mp4 or .mkv with the input's sound, a folder for numbered PNGs, or - for YUV4MPEG2 on "
        "standard output, to be piped into ffplay or ffmpeg",
    )
    stream.add_argument("--prompt", default="", help="what the output shows")
    stream.add_argument(
        "--prompt-at",
        action="append",
        default=[],
        metavar='"t=3s: …"',
        help="another prompt from then on, or from frame=90; may be repeated",
    )
    stream.add_argument(
        "--on-prompt",
        choices=("keep", "rewarm"),
        default="keep",
        help="at another prompt, keep the memory of the old look, or fill it anew (default: keep)",
    )
    stream.add_argument(
        "--blend", type=int, default=0, metavar="N", help="let another prompt come in over N frames"
    )
    stream.add_argument(
        "--lora", action="append", default=[], metavar="PATH[:SCALE]", help="a LoRA; may be repeated"
    )
    stream.add_argument(
        "--lora-at",
        action="append",
        default=[],
        metavar='"t=3s: NAME=0.4"',
        help="another strength from then on; NAME is the file's, without its ending",
    )
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
    stream.add_argument(
        "--on-cut",
        choices=("keep", "rewarm"),
        default="keep",
        help="at a cut in the input, keep the memory, or warm up on the new scene (default: keep)",
    )
    stream.add_argument(
        "--similar-frame-skip",
        type=float,
        metavar="S",
        help="do not denoise a frame this similar to the last, such as 0.98; it shows what that one became",
    )
    stream.add_argument("--seed", type=int, default=0, help="same seed, same video (default: 0)")
    stream.add_argument(
        "--noise", choices=("fresh", "fixed"), default="fresh", help="per frame, or one for all"
    )
    stream.add_argument(
        "--mask",
        choices=("causal", "warmup_causal"),
        help="who a frame sees, if not as trained: causal keeps no warm-up frames (Table 2, row B)",
    )
    add_device(stream, default=None)  # `replay` takes the recorded one
    stream.add_argument(
        "--dtype", choices=("fp32", "fp16", "bf16"), help="precision to compute in (default: fp32)"
    )
    add_switches(stream)
    stream.add_argument("--record", metavar="SESSION", help="a folder for all that `stream replay` needs")
    stream.add_argument("--model", metavar="EXPORT", help="with replay: where the model lies now")
    stream.add_argument("--side-by-side", metavar="OUT.png", help="also a picture of input and output frames")
    stream.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    stream.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from live2diff.terminal import quiet_libraries

    quiet_libraries()
    if args.export == "replay":
        return _replay(args)
    for value, wrong in (
        (args.session, "only `replay` takes a second name"),
        (args.model, "only with replay"),
    ):
        if value is not None:
            raise UsageError(f"{value!r}: {wrong}")
    for name in ("input", "output"):
        if getattr(args, name) is None:
            raise UsageError(f"--{name} is missing; see live2diff stream --help")
    return _translate(args)


def _replay(args: argparse.Namespace) -> int:
    from live2diff.stream.files import replay

    if args.session is None:
        raise UsageError("say which session: live2diff stream replay SESSION")
    return replay(args.session, args.output, export=args.model, device=args.device, overwrite=args.overwrite)


def _translate(args: argparse.Namespace) -> int:
    from live2diff.interop.lora import parse_lora
    from live2diff.stream.files import translate
    from live2diff.stream.script import lora_cue, prompt_cue
    from live2diff.stream.setup import Setup

    cues = [prompt_cue(text, args.blend, args.on_prompt) for text in args.prompt_at]
    setup = Setup(
        args.export,
        prompt=args.prompt,
        steps=args.steps,
        strength=args.strength,
        size=args.size,
        seed=args.seed,
        noise=args.noise,
        mask=args.mask,
        loras=tuple((str(path), scale) for path, scale in map(parse_lora, args.lora)),
        live_loras=bool(args.lora_at),
        similar_frame_skip=args.similar_frame_skip,
        device=args.device or "auto",
        dtype=args.dtype,
        switches=switches_of(args),
    )
    return translate(
        setup,
        args.input,
        args.output,
        how=args.fit,
        cues=[*map(lora_cue, args.lora_at), *cues],  # a re-warm at the same moment sees both
        on_cut=args.on_cut,
        record=args.record,
        side_by_side=args.side_by_side,
        overwrite=args.overwrite,
    )
