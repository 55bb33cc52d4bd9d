"""What a weight file is, told from the names and shapes of its tensors.

So that a file of another model is refused by its name, not by a list of keys.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NoReturn

import torch

from live2diff.errors import CheckpointError

OFFICIAL, MOTION = "the public Live2Diff checkpoint", "motion modules"

# Name and a pattern that at least one key matches, the most telling first.
_KEYS = [
    (
        "a LoRA",
        r"^(unet|text_encoder):\d+:(up|down)$|lora_(unet|te)|\.lora_(A|B|up|down)\b|"
        r"[._]lora(_linear_layer)?\.(up|down)\.|lora_(A|B|up|down)\.weight$",
    ),
    ("a textual inversion", r"^(emb_params|string_to_param|clip_l)$|^<.+>$"),
    ("an IP-Adapter", r"^(image_proj|ip_adapter)\."),
    ("a ControlNet", r"^control_model\.|^(controlnet_cond_embedding|input_hint_block)\."),
    ("a Stable Diffusion 3 model", r"(^|\.)joint_blocks\.\d"),
    ("a Flux model", r"(^|\.)double_blocks\.\d"),
    ("a Stable Diffusion XL refiner", r"^conditioner\.embedders\.0\.model\."),
    (
        "a Stable Diffusion XL model",
        r"^conditioner\.embedders\.|(^|diffusion_model\.)label_emb\.|^add_embedding\.|^text_model_2\.",
    ),
    ("a Stable Diffusion 2 model", r"^cond_stage_model\.model\."),
    (OFFICIAL, r"^flow_conv_in\."),
    (MOTION, r"motion_modules\."),
    ("a Stable Diffusion 1.5 model", r"(^|\.)diffusion_model\.(input_blocks|middle_block)|^input_blocks\.\d"),
    ("a UNet in diffusers' layout", r"^down_blocks\.\d+\.(attentions|resnets)\."),
    ("a DPT depth network", r"^pretrained\.(model|act_postprocess\d)\."),
    ("MiDaS v2.1's depth network", r"^pretrained\.layer\d\."),
    (
        "a VAE",
        r"^(first_stage_model\.|vae\.)?(encoder|decoder)\.(down|up|mid|conv_in|down_blocks|up_blocks)\b",
    ),
    ("a TAESD", r"^(encoder|decoder)\.layers\.\d+\.(weight|conv)|^\d+\.(conv\.\d+\.)?(weight|bias)$"),
    ("a CLIP text encoder", r"(^|\.)embeddings\.token_embedding\.weight$"),
]
# Where a model takes the text in, and the width of what it takes: 768 is SD1.5's.
_TEXT_IN = re.compile(r"(input_blocks\.\d+\.1|down_blocks\.\d\.attentions)\..*\.attn2\.to_k\.weight$")
_TEXT_WIDTHS = {1024: "a Stable Diffusion 2 model", 2048: "a Stable Diffusion XL model"}
_IMAGE_IN = re.compile(r"(^|diffusion_model\.)(input_blocks\.0\.0|conv_in)\.weight$")
_IMAGE_WIDTHS = {
    9: "an inpainting model",
    8: "an instruct-pix2pix model",
    7: "a Stable Diffusion upscaler",
    5: "a depth-to-image model",
}
# AnimateDiff for SDXL has three levels; SD1.5's modules four.
_LEVEL = re.compile(r"^(?:unet\.)?down_blocks\.(\d)\.motion_modules\.")


def kind_of(weights: Mapping[str, torch.Tensor]) -> str | None:
    """What `weights` are, as "a LoRA" or "a Stable Diffusion XL model"; None when it cannot be told."""
    for key, tensor in weights.items():
        if _TEXT_IN.search(key) and tensor.ndim == 2 and tensor.shape[1] in _TEXT_WIDTHS:
            return _TEXT_WIDTHS[tensor.shape[1]]
        if _IMAGE_IN.search(key) and tensor.ndim == 4 and tensor.shape[1] in _IMAGE_WIDTHS:
            is_pia = tensor.shape[1] == 9 and any("motion_modules." in other for other in weights)
            return "PIA's motion modules" if is_pia else _IMAGE_WIDTHS[tensor.shape[1]]
    for name, pattern in _KEYS:
        if any(re.search(pattern, key) for key in weights):
            levels = {match[1] for key in weights if (match := _LEVEL.search(key))}
            if name == MOTION and levels == {"0", "1", "2"}:
                return "motion modules for Stable Diffusion XL"
            return name
    return None


def refuse(weights: Mapping[str, torch.Tensor], where: str | os.PathLike, wanted: str) -> NoReturn:
    """Raise CheckpointError: `where` is not `wanted`, but what it is, as far as that can be told."""
    kind = kind_of(weights)
    if kind is None:
        key = next(iter(weights))
        kind = f"of no kind this project knows (it holds {ascii(key)[1:-1][:100]})"
    raise CheckpointError(f"{where}: is {kind}, not {wanted}; give another file")
