"""A LoRA file -> its layers by flat name (see `layouts`)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from live2diff.errors import CheckpointError
from live2diff.interop.lora import cloneofsimo, layouts
from live2diff.interop.lora.layer import Layer, shown
from live2diff.tensor_files import read_table
from live2diff.weights import read_json, read_weights

_FOLDER_FILES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")


@dataclass(frozen=True)
class LoraFile:
    """What a LoRA file holds, before it is fitted to a model.

    layers: by flat name, see `layouts`.
    embeddings: vectors (D,) of learned tokens that some files carry along, see `textual_inversion`.
    """

    path: Path
    layers: dict[str, Layer]
    embeddings: dict[str, torch.Tensor] = field(default_factory=dict)


def read_lora(path: str | Path) -> LoraFile:
    """Read a LoRA file, or a folder that diffusers or peft saved one in.

    Raises:
        CheckpointError: no LoRA of a known layout; another kind of adapter (DoRA, LoHa, LoKr, ...); damaged.
    """
    path = Path(path)
    config: dict[str, Any] = {}
    if path.is_dir():
        folder, path = path, next((path / name for name in _FOLDER_FILES if (path / name).is_file()), path)
        if path == folder:
            raise CheckpointError(f"{folder}: has neither {' nor '.join(_FOLDER_FILES)}")
        if (folder / "adapter_config.json").is_file():
            config = read_json(folder / "adapter_config.json")
    content = read_table(path)
    if isinstance(content, list):
        return LoraFile(path, cloneofsimo.parse_list(content, path))
    tensors = read_weights(path)
    if cloneofsimo.is_cloneofsimo(tensors):
        return LoraFile(path, *cloneofsimo.parse(tensors, path))
    layers = layouts.parse(tensors, path)
    return LoraFile(path, _with_config(layers, config or _config_in_header(path), path))


def _config_in_header(path: Path) -> dict[str, Any]:
    """peft's configuration, which diffusers keeps in the file's header, with "unet." before every key."""
    try:
        with safe_open(path, "pt") as file:
            config = json.loads((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except SafetensorError:  # a PyTorch file has no such header
        return {}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: lora_adapter_metadata in its header is no JSON; get it again"
        ) from error
    return config if isinstance(config, dict) else {}


def _with_config(layers: dict[str, Layer], config: dict[str, Any], path: Path) -> dict[str, Layer]:
    """Alphas as peft's configuration states them: a default and exceptions by module name."""
    for part, prefix in (("unet", "unet."), ("text", "text_encoder.")):
        own = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
        own = own or {key: value for key, value in config.items() if "." not in key}
        if own.get("use_dora"):
            raise CheckpointError(f"{path}: is a DoRA (use_dora); only LoRA is supported")
        if "lora_alpha" in own:
            alpha_of = _alphas(own, part, path)
            ours = {name: layer for name, layer in layers.items() if name.startswith(f"{part}_")}
            layers = layers | {name: replace(ours[name], alpha=alpha_of(name, ours[name])) for name in ours}
    return layers


def _alphas(config: dict[str, Any], part: str, path: Path) -> Callable[[str, Layer], float]:
    patterns = config.get("alpha_pattern") or {}
    if not isinstance(patterns, dict):
        raise CheckpointError(f"{path}: alpha_pattern is no table of module names")
    # peft takes these for regular expressions; what it and diffusers write are names, whole with "^".
    whole, ends = {}, {}
    for key, value in patterns.items():
        name = layouts.flat(part, key.removeprefix("^"))
        if key.startswith("^"):
            whole[name] = value
        else:
            ends[name.removeprefix(part)] = value

    def alpha_of(name: str, layer: Layer) -> float:
        end = max((end for end in ends if name.endswith(end)), key=len, default=None)
        alpha = whole.get(name, ends[end] if end else config["lora_alpha"])
        if type(alpha) not in (int, float) or not abs(alpha) < 1e6:
            raise CheckpointError(f"{path}: lora_alpha={alpha!r} of {shown(layer.key)} is no number")
        # With this option peft divides by the root of the rank.
        return float(alpha) * layer.rank**0.5 if config.get("use_rslora") else float(alpha)

    return alpha_of
