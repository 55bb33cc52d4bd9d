"""The key layouts of public LoRA files, read into one: a flat name for each adapted module.

    kohya           lora_unet_down_blocks_0_..._attn1_to_q.lora_down.weight  .lora_up.weight  .alpha
    diffusers, old  unet.down_blocks.0...attn1.processor.to_q_lora.down.weight, also without `unet.`
    diffusers, peft unet.down_blocks.0...attn1.to_q.lora_A.weight  .lora_B.weight
    AnimateDiff     down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.
                        attention_blocks.0.processor.to_q_lora.down.weight

Kohya's names have lost their dots, so every name is flattened like them; a model's module names stay distinct
when flattened (`fit`), and only the model knows where the dots were.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from live2diff.errors import CheckpointError
from live2diff.interop.animatediff import motion_keys_to_ours
from live2diff.interop.kinds import kind_of, refuse
from live2diff.interop.lora.layer import Layer, shown

# What a key ends with, and what it then holds; the first that fits counts.
_ENDINGS = [
    (end, role)
    for stem in (".lora_linear_layer", ".lora", "_lora")
    for end, role in ((f"{stem}.down.weight", "down"), (f"{stem}.up.weight", "up"))
] + [
    (".lora_down.weight", "down"),
    (".lora_up.weight", "up"),
    (".lora_mid.weight", "mid"),
    (".lora_A.weight", "down"),
    (".lora_B.weight", "up"),
    (".alpha", "alpha"),
]
_PARTS = [
    ("lora_unet_", "unet"),
    ("lora_te1_", "text"),  # SDXL's name for the encoder that SD1.5 has too
    ("lora_te_", "text"),
    ("base_model.model.", ""),
    ("unet.", "unet"),
    ("text_encoder.", "text"),
]
# Adapters that are no plain LoRA: what a key of theirs looks like -> the kind.
_OTHER_KINDS = {
    r"\.dora_scale$|\.lora_magnitude_vector\b": "DoRA",
    r"\.hada_w\d": "LoHa",
    r"\.lokr_w\d": "LoKr",
    r"\.oft_(blocks|diag)": "OFT",
    r"\.on_input$": "IA3",
    r"\.a1\.weight$": "GLoRA",
    r"\.lora_B\.(\w+\.)?bias$": "LoRA with biases",
    r"\.diff(_b)?$": "full difference of weights",
}
_LARGEST_KERNEL = 7


def parse(tensors: dict[str, torch.Tensor], path: Path) -> dict[str, Layer]:
    """Layers by flat name ("unet_down_blocks_0_...", "text_encoder_layers_0_...") of a LoRA file's tensors.

    Raises:
        CheckpointError: another kind of adapter, keys that are none of LoRA's, half a pair, values that are
            not finite. `path` names the file in it.
    """
    for pattern, kind in _OTHER_KINDS.items():
        keys = [key for key in tensors if re.search(pattern, key)]
        if keys:
            raise CheckpointError(
                f"{path}: holds {kind} ({len(keys)} keys like {shown(keys[0])}); only LoRA is supported"
            )
    found: dict[str, dict[str, tuple[str, torch.Tensor]]] = {}
    strange = []
    for key, tensor in motion_keys_to_ours(tensors).items():
        site, role = _split(key)
        if role is None:
            strange.append(key)
            continue
        if role in found.setdefault(site, {}):
            raise CheckpointError(f"{path}: {shown(key)} is there twice, in two layouts")
        found[site][role] = (key, tensor)
    if strange:
        if not found and kind_of(tensors) not in (None, "a LoRA"):
            refuse(tensors, path, "a LoRA")
        raise CheckpointError(
            f"{path}: is no LoRA: {len(strange)} of {len(tensors)} keys are none ({shown(strange[0])}, ...)"
        )
    return {site: _layer(roles, path) for site, roles in found.items()}


def _part_of(key: str) -> tuple[str, str]:
    """("unet" or "text", the rest) of a key or module name in any layout."""
    part = ""
    for prefix, of in _PARTS:
        if key.startswith(prefix):
            key, part = key.removeprefix(prefix), of or part
    if not part:
        part = "text" if key.startswith(("text_model", "encoder")) else "unet"
    return part, key


def flat(part: str, name: str) -> str:
    """The one flat name of a module, from its path or from a file's flattened one."""
    name = name.replace(".", "_")
    if part == "text":
        name = name.removeprefix("text_model_")
    return f"{part}_{name}"


def _split(key: str) -> tuple[str, str | None]:
    """(flat name, role) of a key; the role is None for a key that is none of LoRA's."""
    plain = re.sub(r"\.(lora_[AB])\.[^.]+\.weight$", r".\1.weight", key)  # peft's adapter name
    for ending, role in _ENDINGS:
        if plain.endswith(ending):
            part, name = _part_of(plain.removesuffix(ending))
            name = flat(part, name.replace(".processor", ""))
            # Attention processors had names of their own for the layers of the attention.
            name = re.sub(r"(attn\d)_to_out$", r"\1_to_out_0", name)
            return re.sub(r"self_attn_to_(q|k|v|out)$", r"self_attn_\1_proj", name), role
    return key, None


def _layer(roles: dict[str, tuple[str, torch.Tensor]], path: Path) -> Layer:
    key = next(iter(roles.values()))[0]
    if "down" not in roles or "up" not in roles:
        raise CheckpointError(f"{path}: {shown(key)} lacks its other half; the file is cut short")
    for name, tensor in roles.values():
        if not tensor.is_floating_point() and not name.endswith(".alpha") or not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {shown(name)} holds values that are no finite floats")
    key, down = roles["down"]
    up = roles["up"][1]
    rank = down.shape[0] if down.ndim else 0
    if down.ndim not in (2, 4) or up.ndim not in (2, 4) or rank == 0 or up.shape[1] != rank:
        shapes = f"{tuple(down.shape)} and {tuple(up.shape)}"
        raise CheckpointError(f"{path}: {shown(key)} and its other half have no common rank ({shapes})")
    if "mid" in roles:
        down = _fold(roles["mid"][1], down, roles["mid"][0], path)
    alpha = float(rank)
    if "alpha" in roles:
        name, tensor = roles["alpha"]
        if tensor.numel() != 1:
            raise CheckpointError(f"{path}: {shown(name)} has {tensor.numel()} values instead of one")
        alpha = float(tensor.reshape(()))
    return Layer(down, up, alpha, key)


def _fold(mid: torch.Tensor, down: torch.Tensor, key: str, path: Path) -> torch.Tensor:
    """LyCORIS's CP form of a k x k convolution, 1 x 1 down then k x k between ranks, as one k x k down."""
    rank = down.shape[0]
    fits = mid.ndim == 4 and mid.shape[:2] == (rank, rank) and max(mid.shape[2:]) <= _LARGEST_KERNEL
    if not fits or down.ndim != 4 or down.shape[2:] != (1, 1):
        raise CheckpointError(f"{path}: {shown(key)} has shape {tuple(mid.shape)}; expected one of a CP form")
    return torch.einsum("pqhw,qi->pihw", mid.float(), down[:, :, 0, 0].float())
