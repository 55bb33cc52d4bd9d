"""Stable Diffusion 1.5 in one file: the original layout's parts under diffusers' and transformers' names.

    model.diffusion_model.*     the UNet; `diffusion_model.` or no prefix in files that hold nothing else
    first_stage_model.*         the VAE; `vae.` or no prefix in files that hold nothing else
    cond_stage_model.transformer.text_model.*    CLIP's text encoder; some merges lost the `text_model.`
    model_ema.*                 a running average of the UNet, left out, as diffusers does

A DreamBooth is such a file, often in half precision and without some of the parts. Renaming is diffusers'
where it has it; what it passes over in silence, keys it does not know, is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import (
    LDM_UNET_KEY,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
)

from live2diff.errors import CheckpointError
from live2diff.interop.kinds import kind_of, refuse

Weights = dict[str, torch.Tensor]

# What may be asked for a part.
_FAMILY = ("a Stable Diffusion 1.5 model", "a UNet in diffusers' layout", "a VAE", "a CLIP text encoder")
_UNET = (LDM_UNET_KEY, "diffusion_model.")
_VAE = ("first_stage_model.", "vae.")
_TEXT = ("cond_stage_model.transformer.", "text_encoder.")
# Known beside the parts, and of no use here: averages, training's own, and (names without a dot) buffers of
# the noise schedule.
_SPARE = ("model_ema.", "embedding_manager.", "cond_stage_model.")
_VAE_SPARE = ("loss.", "model_ema.")
_CLIP_SPARE = re.compile(r"^(vision_model|visual_projection|text_projection|logit_scale)\b|position_ids$")
# How diffusers' older VAE folders name what is in their attention.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def unet_weights(weights: Mapping[str, torch.Tensor], config: Mapping[str, Any], where: Path) -> Weights:
    """The UNet's weights by diffusers' names, from a whole model or a UNet alone, in either layout.

    Raises:
        CheckpointError: another model, no UNet, or keys that nobody knows.
    """
    part = _part(
        weights, "a UNet", _UNET, ("a Stable Diffusion 1.5 model", "a UNet in diffusers' layout"), where
    )
    if "conv_in.weight" in part:
        return part
    ldm = {LDM_UNET_KEY + key: tensor for key, tensor in part.items()}
    return _converted(convert_ldm_unet_checkpoint(ldm, config), part, where)


def vae_weights(weights: Mapping[str, torch.Tensor], config: Mapping[str, Any], where: Path) -> Weights:
    """The same for the VAE, an `AutoencoderKL`."""
    part = _part(weights, "a VAE", _VAE, ("a VAE",), where)
    part = {key: tensor for key, tensor in part.items() if not key.startswith(_VAE_SPARE) and "." in key}
    if any(key.startswith(("encoder.down.", "decoder.up.")) for key in part):
        return _converted(convert_ldm_vae_checkpoint(dict(part), config), part, where)
    old = re.compile(rf"(\.attentions\.\d+)\.({'|'.join(_OLD_ATTENTION)})\.")
    return {
        old.sub(lambda match: f"{match[1]}.{_OLD_ATTENTION[match[2]]}.", key): tensor
        for key, tensor in part.items()
    }


def text_weights(weights: Mapping[str, torch.Tensor], where: Path) -> Weights:
    """The text encoder's weights by the names that transformers gives them today, without `text_model.`."""
    part = _part(weights, "a CLIP text encoder", _TEXT, ("a CLIP text encoder",), where)
    return {
        key.removeprefix("text_model."): tensor for key, tensor in part.items() if not _CLIP_SPARE.search(key)
    }


def _part(
    weights: Mapping[str, torch.Tensor],
    what: str,
    prefixes: tuple[str, ...],
    alone: tuple[str, ...],
    where: Path,
) -> Weights:
    """The part under one of `prefixes`, without it; or all of a file whose kind is one of `alone`."""
    kind = kind_of(weights)
    if kind not in _FAMILY:
        refuse(weights, where, what)
    for prefix in prefixes:
        part = {k.removeprefix(prefix): tensor for k, tensor in weights.items() if k.startswith(prefix)}
        if part:
            _check_rest(weights, where)
            return part
    if kind not in alone:
        raise CheckpointError(f"{where}: is {kind} without {what}; name another file for that part")
    return dict(weights)


def _check_rest(weights: Mapping[str, torch.Tensor], where: Path) -> None:
    known = (*_UNET, *_VAE, *_TEXT, *_SPARE)
    rest = [key for key in weights if "." in key and not key.startswith(known)]
    if rest:
        raise CheckpointError(
            f"{where}: holds {len(rest)} keys beside a Stable Diffusion model that nobody knows "
            f"({ascii(rest[0])[1:-1][:100]}); give the model's own file"
        )


def _converted(result: Weights, part: Weights, where: Path) -> Weights:
    """`result` of a renaming, after making sure that it left nothing of `part` out."""
    used = {tensor.data_ptr() for tensor in result.values()}
    left = [key for key, tensor in part.items() if tensor.data_ptr() not in used]
    if left:
        raise CheckpointError(
            f"{where}: not weights of this model: {len(left)} keys unexpected ({ascii(left[0])[1:-1][:100]})"
        )
    return result
