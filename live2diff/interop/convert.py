"""An export -> the formats that other tools read, with a note of what each cannot hold.

    motion-adapter   a folder for diffusers' `MotionAdapter.from_pretrained`
    animatediff      AnimateDiff's motion modules, .safetensors or .ckpt, as ComfyUI and others load them
    depth-branch     the depth branch alone, in the public release's layout
    official         the whole UNet in the public Live2Diff release's layout
    lora-LAYOUT      adapters that a run trained, in a layout of `lora.save`

Tensors go from file to file; no model is built, but for LoRA. What a format holds, it holds to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import MotionAdapter
from safetensors.torch import save_file

from live2diff.errors import CheckpointError, UsageError
from live2diff.files import staged_file, staged_folder
from live2diff.interop.animatediff import State, keys_from_ours
from live2diff.interop.lora import extract_lora, lora_names
from live2diff.interop.lora.save import LAYOUTS, save_lora
from live2diff.interop.sizes import folder_config
from live2diff.model.build import load_model
from live2diff.model.folder import DTYPES, read_config, short_name
from live2diff.weights import read_folder, without_weights

_LORA = "lora-"

_SETTINGS = "the settings: mask, window and warm-up, noise schedule, depth normalisation, size, steps"
_SPATIAL = "the spatial weights (the image model)"
_DEPTH = "the depth branch"
_PARTS = "VAE, text encoder and depth net"
_MOTION_ONLY = (_SETTINGS, _SPATIAL, _DEPTH, _PARTS)


@dataclass(frozen=True)
class Format:
    """One way out: what a file may be called (nothing: it is a folder), what it holds and what it cannot."""

    suffixes: tuple[str, ...]
    holds: Callable[[str], bool]  # of a weight's name in our UNet
    lacks: tuple[str, ...]
    write: Callable[[State, dict[str, Any], Path], None]


def convert(export: str | Path, to: str, out: str | Path, dtype: str | None = None) -> list[str]:
    """Write the export's UNet, or part of it, to `out` in the format `to`, one of `formats()`.

    Args:
        export: a model folder; for LoRA a run, whose adapters an export has in its weights already.
        dtype: fp32, fp16 or bf16; None keeps what the export holds.

    Returns:
        What `out` does not hold of the export, one phrase each.

    Raises:
        UsageError: an unknown format, or an `out` that exists or has the wrong suffix.
        CheckpointError: not an export, or one without what the format is for.
    """
    export, out = Path(export), Path(out)
    if to not in formats():
        raise UsageError(f"format {to!r} is unknown; use one of {', '.join(formats())}")
    if out.exists():
        raise UsageError(f"{out}: exists already; choose another name")
    if to.startswith(_LORA):
        return _convert_lora(export, to.removeprefix(_LORA), out, dtype)
    target = FORMATS[to]
    if target.suffixes and out.suffix not in target.suffixes:
        raise UsageError(f"{out}: must be named {' or '.join(target.suffixes)}")
    config = read_config(export)
    weights = {key: t for key, t in read_folder(export / "unet").items() if target.holds(key)}
    if not weights:
        raise CheckpointError(f"{export}: has nothing that {to} could hold; train stage 2 for a depth branch")
    unet = folder_config(export / "unet")
    notes = [*target.lacks, *_assumptions(to, unet)]
    if dtype is not None and DTYPES[dtype] != config.dtype:
        weights = {key: _rounded(tensor, dtype, export / key) for key, tensor in weights.items()}
        if dtype != "fp32":
            notes.append(f"the full precision: {short_name(config.dtype)} weights were rounded to {dtype}")
    target.write(weights, unet, out)
    return notes


def formats() -> list[str]:
    return [*FORMATS, *(f"{_LORA}{layout}" for layout in LAYOUTS)]


def _write_motion_adapter(weights: State, unet: dict[str, Any], out: Path) -> None:
    """As diffusers' `save_motion_modules`, which however drops the number of transformer layers."""
    try:
        with without_weights():
            adapter = MotionAdapter(
                block_out_channels=tuple(unet["block_out_channels"]),
                motion_layers_per_block=unet["layers_per_block"],
                motion_transformer_layers_per_block=unet["temporal_transformer_layers_per_block"],
                motion_transformer_layers_per_mid_block=unet["temporal_transformer_layers_per_block"],
                motion_num_attention_heads=unet["motion_num_attention_heads"],
                motion_norm_num_groups=unet["norm_num_groups"],
                motion_max_seq_length=unet["motion_max_seq_length"],
                use_motion_mid_block=unet["use_motion_mid_block"],
            )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"unet/config.json: gives no motion adapter ({error}); export again") from error
    with staged_folder(out) as stage:
        adapter.save_config(stage)
        save_file(weights, stage / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def _convert_lora(run: Path, layout: str, out: Path, dtype: str | None) -> list[str]:
    model = load_model(run)
    names = lora_names(model)
    if len(names) != 1:
        held = (
            f"{len(names)} LoRA adapters" if names else "no LoRA adapters; an export has them in its weights"
        )
        raise CheckpointError(f"{run}: has {held}; give a run that trains one")
    losses = save_lora(extract_lora(model, names[0]), out, layout, DTYPES[dtype] if dtype else None)
    return [*losses, "everything but the adapters"]


def _write_file(weights: State, unet: dict[str, Any], out: Path) -> None:
    state = keys_from_ours(weights)
    with staged_file(out) as stage:
        if out.suffix == ".safetensors":
            # One table of positions serves two attentions; a file holds each under its own name.
            save_file(_unshared(state), stage, metadata={"format": "pt"})
        else:
            # Copies: what was read may be a window on its file, and torch would store all of that.
            torch.save({key: tensor.clone() for key, tensor in state.items()}, stage)


def _rounded(tensor: torch.Tensor, dtype: str, where: Path) -> torch.Tensor:
    rounded = tensor.to(DTYPES[dtype])
    if not rounded.isfinite().all():
        raise CheckpointError(f"{where}: holds values that are not finite in {dtype}; take bf16 or fp32")
    return rounded


def _unshared(state: State) -> State:
    seen: set[int] = set()
    return {
        key: tensor.clone() if tensor.data_ptr() in seen or seen.add(tensor.data_ptr()) else tensor
        for key, tensor in state.items()
    }


def _assumptions(to: str, unet: dict[str, Any]) -> list[str]:
    """What loaders of a layout without a configuration take for granted, where this model is otherwise."""
    if to not in ("animatediff", "official"):
        return []
    return [
        f"{what}: {unet.get(key)} here, loaders of this layout assume {assumed}"
        for key, assumed, what in (
            ("motion_num_attention_heads", 8, "heads of the temporal attentions"),
            ("norm_num_groups", 32, "groups of the normalisation"),
            ("layers_per_block", 2, "layers in a block"),
        )
        if unet.get(key) != assumed
    ]


def _is_motion(key: str) -> bool:
    return ".motion_modules." in key


def _is_branch(key: str) -> bool:
    return key.startswith("depth_branch.")


_FILE = (".safetensors", ".ckpt")
FORMATS = {
    "motion-adapter": Format((), _is_motion, _MOTION_ONLY, _write_motion_adapter),
    "animatediff": Format(_FILE, _is_motion, _MOTION_ONLY, _write_file),
    "depth-branch": Format(
        _FILE, _is_branch, (_SETTINGS, _SPATIAL, "the motion modules", _PARTS), _write_file
    ),
    "official": Format(_FILE, lambda _: True, (_SETTINGS, _PARTS), _write_file),
}
