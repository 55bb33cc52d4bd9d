"""Models to measure: sizes are real, weights are random, nothing is fetched."""

from __future__ import annotations

import inspect
from typing import Any, cast

import torch
from diffusers import UNetMotionModel
from omegaconf import OmegaConf

from live2diff.config import compose
from live2diff.errors import UsageError
from live2diff.interop.sizes import sd15_config
from live2diff.model.build import build
from live2diff.model.unet import CausalUNet
from live2diff.model.video_model import VideoModel

# Stable Diffusion 1.5's text encoder, with one token per character.
SD15_TEXT = {
    key: sd15_config("text_encoder")[key]
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
}
# What `conf/model/sd15.yaml` fetches, as sizes. TAESD is the VAE that streams use for speed.
_SD15: dict[str, Any] = {
    "unet": {"pretrained": None, "motion": None, "depth_branch": None, "config": {}},
    "vae": {"pretrained": None, "kind": "AutoencoderTiny", "config": {}},
    "text": {"pretrained": None, "config": SD15_TEXT},
    "depth": {"preset": "dpt_hybrid", "weights": None},
    "settings": {},
}


def make_model(name: str, device: torch.device, dtype: torch.dtype) -> VideoModel:
    """`tiny`, or `sd15`: SD1.5 with AnimateDiff's modules, TAESD and MiDaS DPT-hybrid.

    Raises:
        UsageError: another name.
    """
    if name == "tiny":
        composed = compose("train", ["data.path=none", "model=tiny"]).model
        config = cast(dict[str, Any], OmegaConf.to_container(composed))
    elif name == "sd15":
        config = _SD15
    else:
        raise UsageError(f"--model {name}: expected tiny or sd15")
    return build(config).to(device, dtype).channels_last()


def stock_unet(unet: CausalUNet) -> UNetMotionModel:
    """diffusers' `UNetMotionModel` on the weights of ours, without depth: the same tensors, not copies."""
    known = inspect.signature(UNetMotionModel.__init__).parameters
    with torch.device("meta"):
        stock = UNetMotionModel(**{key: value for key, value in unet.config.items() if key in known})
    ours = dict(unet.named_parameters())
    for name, parameter in stock.named_parameters():
        # Assigning gives a tensor the flag of the one it replaces; what is frozen must stay so.
        parameter.requires_grad_(ours[name].requires_grad)
    stock.load_state_dict(ours, strict=False, assign=True)
    tables = dict(unet.named_buffers())
    for name, _ in list(stock.named_buffers()):
        owner, _, last = name.rpartition(".")
        stock.get_submodule(owner).register_buffer(last, tables[name], persistent=False)
    return stock
