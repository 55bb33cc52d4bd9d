"""LoRA files with the key layouts of public ones, from random matrices. The layouts are written out here by
hand, independently of the reader."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file

from live2diff.model.video_model import VideoModel


class Pair(NamedTuple):
    down: torch.Tensor
    up: torch.Tensor
    alpha: float

    @property
    def delta(self) -> torch.Tensor:
        """up @ down * alpha / rank, written out for every kernel size."""
        rank = self.down.shape[0]
        product = torch.einsum("or,ri...->oi...", self.up.reshape(-1, rank), self.down)
        return product * (self.alpha / rank)


Pairs = dict[str, Pair]

ATTENTION = r"\.attentions\..*attn\d\.to_(q|k|v|out\.0)$"
TEXT_ATTENTION = r"^text\..*self_attn"
MOTION = r"motion_modules.*attn\d\.to_(q|k|v|out\.0)$"
# Everything that LCM-LoRA adapts: its authors' list of names, in every block.
LCM = (
    r"^unet\.(?!.*motion_modules).*"
    r"(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|conv1|conv2|conv_shortcut"
    r"|downsamplers\.0\.conv|upsamplers\.0\.conv|time_emb_proj)$"
)
# LyCORIS can be told to adapt the very first and last layers, too.
ALL = r"^unet\.(?!.*(motion_modules|depth_branch))|^text\."


def random_pairs(
    model: VideoModel,
    pattern: str,
    ranks: tuple[int, ...] = (1, 2, 3),
    alphas: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0),
) -> Pairs:
    """A pair for every layer whose path matches; ranks and alphas take turns."""
    generator = torch.Generator().manual_seed(0)
    pairs = {}
    for part, root in (("unet", model.unet), ("text", model.text.model)):
        for name, module in root.named_modules():
            path = f"{part}.{name}"
            if not isinstance(module, torch.nn.Linear | torch.nn.Conv2d) or not re.search(pattern, path):
                continue
            out, channels, *kernel = module.weight.shape
            rank, alpha = ranks[len(pairs) % len(ranks)], alphas[len(pairs) % len(alphas)]
            down = torch.randn(rank, channels, *kernel, generator=generator) / module.weight[0].numel() ** 0.5
            up = 0.2 * torch.randn(out, rank, *(1 for _ in kernel), generator=generator)
            pairs[path] = Pair(down, up, alpha)
    assert pairs
    return pairs


def text_name(path: str) -> str:
    """The module's name in the text encoders that files were made with."""
    return path.replace("text.encoder", "text_model.encoder").replace("text.text_model", "text_model")


def kohya(pairs: Pairs, alphas: bool = True) -> dict[str, torch.Tensor]:
    tensors = {}
    for path, pair in pairs.items():
        if path.startswith("unet."):
            name = "lora_unet_" + path.removeprefix("unet.").replace(".", "_")
        else:
            name = "lora_te_" + text_name(path).replace(".", "_")
        tensors[f"{name}.lora_down.weight"] = pair.down
        tensors[f"{name}.lora_up.weight"] = pair.up
        if alphas:
            tensors[f"{name}.alpha"] = torch.tensor(pair.alpha)
    return tensors


def diffusers_peft(pairs: Pairs) -> dict[str, torch.Tensor]:
    tensors = {}
    for path, pair in pairs.items():
        name = path if path.startswith("unet.") else "text_encoder." + text_name(path)
        tensors[f"{name}.lora_A.weight"] = pair.down
        tensors[f"{name}.lora_B.weight"] = pair.up
    return tensors


def diffusers_old(pairs: Pairs, prefix: str = "unet.") -> dict[str, torch.Tensor]:
    """As diffusers saved them until 2023: attention processors with layers of their own."""
    text = {"q_proj": "to_q", "k_proj": "to_k", "v_proj": "to_v", "out_proj": "to_out"}
    tensors = {}
    for path, pair in pairs.items():
        if path.startswith("unet."):
            module, layer = re.fullmatch(r"unet\.(.*attn\d)\.(to_q|to_k|to_v|to_out)(?:\.0)?", path).groups()
            name = f"{prefix}{module}.processor.{layer}_lora"
        else:
            module, layer = text_name(path).rsplit(".", 1)
            name = f"text_encoder.{module}.{text[layer]}_lora"
        tensors[f"{name}.down.weight"] = pair.down
        tensors[f"{name}.up.weight"] = pair.up
    return tensors


def diffusers_linear(pairs: Pairs) -> dict[str, torch.Tensor]:
    """The form in between: `.lora.down` in the UNet, `.lora_linear_layer.down` in the text encoder."""
    tensors = {}
    for path, pair in pairs.items():
        name = (
            f"{path}.lora"
            if path.startswith("unet.")
            else f"text_encoder.{text_name(path)}.lora_linear_layer"
        )
        tensors[f"{name}.down.weight"] = pair.down
        tensors[f"{name}.up.weight"] = pair.up
    return tensors


def animatediff(pairs: Pairs) -> dict[str, torch.Tensor]:
    """AnimateDiff v2's camera LoRA."""
    tensors = {}
    for path, pair in pairs.items():
        block, number, layer = re.fullmatch(
            r"unet\.(.*motion_modules\.\d)\.transformer_blocks\.0\.attn(\d)\.(to_q|to_k|to_v|to_out)(?:\.0)?",
            path,
        ).groups()
        name = (
            f"{block}.temporal_transformer.transformer_blocks.0.attention_blocks.{int(number) - 1}"
            f".processor.{layer}_lora"
        )
        tensors[f"{name}.down.weight"] = pair.down
        tensors[f"{name}.up.weight"] = pair.up
    return tensors


def unscaled(pairs: Pairs) -> Pairs:
    """The same matrices in a layout without alpha: it then counts as the rank."""
    return {path: pair._replace(alpha=float(pair.down.shape[0])) for path, pair in pairs.items()}


def save(tensors: dict[str, torch.Tensor], path: Path, **metadata: str) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata=metadata or None)
    return path
