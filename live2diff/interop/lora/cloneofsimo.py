"""The first public LoRA layout (cloneofsimo/lora): layers by number, not by name.

    safetensors     unet:0:down, unet:0:up, ..., text_encoder:0:down, ...; embeddings beside them, "<s1>"
    .pt             a list of up, down, up, down, ...; one file for the UNet, another for the text encoder

The numbers count the linear layers inside SD1.x's attentions and GEGLUs in the order in which diffusers of
early 2023 created its modules: down blocks, up blocks, mid block; within a transformer block the first
attention, the GEGLU, the second attention. Later releases put the GEGLU last; its width tells which it is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from live2diff.errors import CheckpointError
from live2diff.interop.lora.layer import Layer, shown
from live2diff.interop.lora.layouts import flat

_KEY = re.compile(r"(unet|text_encoder):(\d{1,4}):(up|down)")
_UNET_TRANSFORMERS = [
    *(f"down_blocks.{block}.attentions.{i}" for block in (0, 1, 2) for i in (0, 1)),
    *(f"up_blocks.{block}.attentions.{i}" for block in (1, 2, 3) for i in (0, 1, 2)),
    "mid_block.attentions.0",
]
_PER_BLOCK = 9  # two attentions of four, and the GEGLU
_UNET_LAYERS = _PER_BLOCK * len(_UNET_TRANSFORMERS)
_UNET_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_TEXT_ATTENTION = ("k_proj", "v_proj", "q_proj", "out_proj")


def is_cloneofsimo(table: dict[Any, Any]) -> bool:
    return any(isinstance(key, str) and _KEY.fullmatch(key) for key in table)


def parse(tensors: dict[str, torch.Tensor], path: Path) -> tuple[dict[str, Layer], dict[str, torch.Tensor]]:
    """(layers by flat name, embeddings by token) of a safetensors file. Raises CheckpointError."""
    halves: dict[str, dict[int, dict[str, torch.Tensor]]] = {"unet": {}, "text_encoder": {}}
    embeddings = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match:
            part, number, half = match[1], int(match[2]), match[3]
            halves[part].setdefault(number, {})[half] = tensor
        elif tensor.ndim == 1 and ":" not in key:
            embeddings[key] = tensor
        else:
            raise CheckpointError(f"{path}: {shown(key)} is no key of a cloneofsimo LoRA")
    layers: dict[str, Layer] = {}
    for part, found in halves.items():
        if sorted(found) != list(range(len(found))) or any(len(pair) != 2 for pair in found.values()):
            raise CheckpointError(f"{path}: layers of the {part} are missing; the file is cut short")
        pairs = [(found[i]["up"], found[i]["down"]) for i in range(len(found))]
        layers |= _layers("unet" if part == "unet" else "text", pairs, path)
    return layers, embeddings


def parse_list(tensors: list[Any], path: Path) -> dict[str, Layer]:
    """Layers by flat name of a `.pt` list. Its length tells whose it is. Raises CheckpointError."""
    plain = all(isinstance(t, torch.Tensor) and t.layout == torch.strided for t in tensors)
    if not tensors or len(tensors) % 2 or not plain:
        raise CheckpointError(f"{path}: is a list, but not of a LoRA's matrices")
    tensors = [tensor.detach() for tensor in tensors]
    part = "unet" if len(tensors) == 2 * _UNET_LAYERS else "text"
    return _layers(part, list(zip(tensors[::2], tensors[1::2], strict=True)), path)


def _layers(part: str, pairs: list[tuple[torch.Tensor, torch.Tensor]], path: Path) -> dict[str, Layer]:
    names = _unet_names(pairs) if part == "unet" else _text_names(len(pairs))
    if len(names) != len(pairs):
        raise CheckpointError(
            f"{path}: has {len(pairs)} layers for the {part}, SD1.x has {len(names)}; it is for another model"
        )
    layers = {}
    for number, (name, (up, down)) in enumerate(zip(names, pairs, strict=True)):
        whole = up.ndim == down.ndim == 2 and down.shape[0] == up.shape[1] > 0
        if not whole or not (down.isfinite().all() and up.isfinite().all()):
            raise CheckpointError(f"{path}: layer {number} of the {part} is no finite low-rank pair")
        layers[flat(part, name)] = Layer(down, up, float(down.shape[0]), f"{part}:{number}")
    return layers


def _unet_names(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> list[str]:
    if not pairs:
        return []
    first, second = ([f"attn{i}.{layer}" for layer in _UNET_ATTENTION] for i in (1, 2))
    geglu = ["ff.net.0.proj"]
    # It is the one layer of a block that widens.
    early = len(pairs) > 4 and pairs[4][0].shape[0] > pairs[0][0].shape[0]
    order = [*first, *geglu, *second] if early else [*first, *second, *geglu]
    return [f"{name}.transformer_blocks.0.{layer}" for name in _UNET_TRANSFORMERS for layer in order]


def _text_names(count: int) -> list[str]:
    return [f"encoder.layers.{i}.self_attn.{layer}" for i in range(count // 4) for layer in _TEXT_ATTENTION]
