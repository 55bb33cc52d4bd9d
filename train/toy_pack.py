"""What the runs of the toy world made, as the files that come with the package: `make toy-weights`.

The layouts are those of the real world's downloads, so that the same loaders read them:

    cartoon/               the image model in diffusers' layout: unet, vae, text_encoder, tokenizer
    drawing/unet/          the other style's UNet; everything else is the same
    motion.safetensors     bidirectional motion modules, AnimateDiff's keys
    depth.safetensors      the depth net, MiDaS's keys
    live2diff.safetensors  motion modules that stream, and their depth branch: keys of the authors' release
    SHA256SUMS             of all of these

Weights are stored in half precision and read back as float32.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from live2diff.files import staged_file
from live2diff.interop.animatediff import is_spatial, keys_from_ours
from live2diff.model.build import load_model
from live2diff.model.folder import sha256_of
from live2diff.model.unet import CausalUNet
from live2diff.terminal import quiet_libraries
from live2diff.toy.weights import FOLDER
from train.toy_image import image_half

_KEPT = ("__init__.py", "README.md", "SHA256SUMS", "__pycache__")


def pack(depth: Path, cartoon: Path, drawing: Path, motion: Path, out: Path) -> None:
    """Write the runs' image models, motion modules and the nets they share into `out`."""
    model = load_model(cartoon)
    model.vae.half().save_pretrained(out / "cartoon" / "vae")
    model.text.model.half()
    model.text.save(out / "cartoon")
    image_half(model.unet.half()).save_pretrained(out / "cartoon" / "unet")
    _save(load_model(depth).depth.state_dict(), out / "depth.safetensors")
    image_half(load_model(drawing).unet.half()).save_pretrained(out / "drawing" / "unet")
    unet = load_model(motion, "ema").unet
    _save_motion(unet, out / "motion.safetensors", lambda key: "motion_modules." in key)
    _write_sums(out)


def pack_stream(stage2: Path, out: Path) -> None:
    """Write the motion modules and the depth branch of a stage 2 run into `out`."""
    unet = load_model(stage2, "ema").unet
    _save_motion(unet, out / "live2diff.safetensors", lambda key: not is_spatial(key))
    _write_sums(out)


def _save_motion(unet: CausalUNet, path: Path, wanted: Callable[[str], bool]) -> None:
    _save(keys_from_ours({key: value for key, value in unet.state_dict().items() if wanted(key)}), path)


def _save(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    with staged_file(path) as stage:
        # Copies: both attentions of a block share a table of positions.
        halves = {key: value.detach().half().clone().contiguous() for key, value in weights.items()}
        save_file(halves, stage, metadata={"format": "pt"})


def _write_sums(out: Path) -> None:
    for path in out.rglob("*.safetensors"):
        path.chmod(0o644)  # diffusers' own are for their owner alone
    files = [p for p in sorted(out.rglob("*")) if p.is_file() and not any(n in p.parts for n in _KEPT)]
    with staged_file(out / "SHA256SUMS") as stage:
        stage.write_text("".join(f"{sha256_of(p)}  {p.relative_to(out).as_posix()}\n" for p in files))
    size = sum(p.stat().st_size for p in files if p.suffix == ".safetensors")
    print(f"{len(files)} files in {out}, {size / 1e6:.2f} MB of weights")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m train.toy_pack")
    parser.add_argument("runs", type=Path, help="the folder of the runs")
    parser.add_argument("--stream", action="store_true", help="pack the run toy_stage2, else the others")
    parser.add_argument("--out", type=Path, default=FOLDER, help="default: the package's own folder")
    args = parser.parse_args(words)
    quiet_libraries()
    if args.stream:
        pack_stream(args.runs / "toy_stage2", args.out)
    else:
        pack(
            *(args.runs / name for name in ("toy_depth", "toy_cartoon", "toy_drawing", "toy_motion")),
            args.out,
        )


if __name__ == "__main__":
    main()
