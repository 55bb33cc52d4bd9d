"""LoRA out, in the layouts that other tools read.

diffusers    unet.NAME.lora_A.weight; diffusers, ComfyUI. Ranks and alphas stand in the header, as peft's
             configuration, where diffusers looks for them
kohya        lora_unet_NAME.lora_down.weight, .alpha; A1111, ComfyUI, kohya's tools, diffusers. diffusers
             cannot read motion modules in it
animatediff  AnimateDiff's motion LoRA: temporal attentions alone; ComfyUI, the original code
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from live2diff.errors import UsageError
from live2diff.files import staged_file
from live2diff.interop.lora.layer import Layers

Tensors = dict[str, torch.Tensor]
Header = dict[str, str]  # one entry at most: safetensors writes several in random order


def save_lora(
    layers: Layers, path: str | Path, layout: str = "diffusers", dtype: torch.dtype | None = None
) -> list[str]:
    """Write `layers` (from `extract_lora` or `fit`) to a safetensors file, staged.

    Args:
        layout: one of `LAYOUTS`.
        dtype: of the matrices; None keeps theirs.

    Returns:
        What the layout cannot hold, in words; empty when `read_lora` gives the same layers back.

    Raises:
        UsageError: an unknown layout, or layers that it has no names for.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"layout={layout}: expected one of {', '.join(LAYOUTS)}")
    if Path(path).suffix != ".safetensors":
        raise UsageError(f"{path}: a LoRA is written as .safetensors; name it so")
    tensors, header, losses = LAYOUTS[layout](layers)
    for key, tensor in tensors.items():
        wanted = tensor.dtype if key.endswith(".alpha") else dtype or tensor.dtype
        tensors[key] = tensor.detach().to("cpu", wanted).contiguous()
    with staged_file(path) as stage:
        save_file(tensors, stage, metadata=header or None)
    return losses


def _diffusers(layers: Layers) -> tuple[Tensors, Header, list[str]]:
    tensors: Tensors = {}
    config: dict[str, Any] = {}
    for part, prefix in (("unet", "unet"), ("text", "text_encoder")):
        own = {path.split(".", 1)[1]: layer for path, layer in layers.items() if path.startswith(f"{part}.")}
        for path, layer in own.items():
            name = f"{prefix}.{_old_text_name(path) if part == 'text' else path}"
            tensors[f"{name}.lora_A.weight"] = layer.down
            tensors[f"{name}.lora_B.weight"] = layer.up
        if own:
            config |= {f"{prefix}.{key}": value for key, value in _peft_config(own).items()}
    return tensors, {"lora_adapter_metadata": json.dumps(config, sort_keys=True)}, []


def _peft_config(layers: Layers) -> dict[str, Any]:
    """Arguments of peft's LoraConfig: the most frequent rank and alpha, and exceptions by name.

    A name stands for all modules that end with it: those of the text encoder have a prefix before
    transformers 5 and none since.
    """
    rank = Counter(layer.rank for layer in layers.values()).most_common(1)[0][0]
    alpha = Counter(layer.alpha for layer in layers.values()).most_common(1)[0][0]
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": _whole(alpha),
        "rank_pattern": {path: layer.rank for path, layer in layers.items() if layer.rank != rank},
        "alpha_pattern": {
            path: _whole(layer.alpha) for path, layer in layers.items() if layer.alpha != alpha
        },
        "target_modules": sorted(layers),
    }


def _whole(number: float) -> int | float:
    return int(number) if number.is_integer() else number


def _kohya(layers: Layers) -> tuple[Tensors, Header, list[str]]:
    tensors: Tensors = {}
    for path, layer in layers.items():
        part, name = path.split(".", 1)
        name = f"lora_te_{_old_text_name(name)}" if part == "text" else f"lora_unet_{name}"
        name = name.replace(".", "_")
        tensors[f"{name}.lora_down.weight"] = layer.down
        tensors[f"{name}.lora_up.weight"] = layer.up
        tensors[f"{name}.alpha"] = _scalar(layer.alpha)
    return tensors, {"ss_base_model_version": "sd_v1"}, []


def _scalar(number: float) -> torch.Tensor:
    """In float32 as everyone writes it, in float64 where that would not be the same number."""
    single = torch.tensor(number, dtype=torch.float32)
    return single if float(single) == number else torch.tensor(number, dtype=torch.float64)


def _animatediff(layers: Layers) -> tuple[Tensors, Header, list[str]]:
    tensors: Tensors = {}
    losses = []
    for path, layer in layers.items():
        head, found, tail = path.removeprefix("unet.").partition(".transformer_blocks.")
        block, _, projection = tail.partition(".attn")
        number, _, projection = projection.partition(".")
        if not found or ".motion_modules." not in head or projection not in _PROJECTIONS:
            raise UsageError(
                f"layout=animatediff holds temporal attentions alone, not {path}; choose diffusers or kohya"
            )
        attention = (
            f"{head}.temporal_transformer.transformer_blocks.{block}.attention_blocks.{int(number) - 1}"
        )
        key = f"{attention}.processor.{projection.removesuffix('.0')}_lora"
        tensors[f"{key}.down.weight"] = layer.down
        tensors[f"{key}.up.weight"] = layer.up
        if layer.alpha != layer.rank:
            tensors[f"{key}.up.weight"] = layer.up * (layer.alpha / layer.rank)
            losses = ["it has no alpha: alpha / rank is multiplied into the matrices"]
    return tensors, {}, losses


def _old_text_name(name: str) -> str:
    """The text encoder's module names as they were until transformers 5, which files keep to."""
    return name if name.startswith("text_model.") else f"text_model.{name}"


_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
LAYOUTS: dict[str, Callable[[Layers], tuple[Tensors, Header, list[str]]]] = {
    "diffusers": _diffusers,
    "kohya": _kohya,
    "animatediff": _animatediff,
}
