"""Models to measure: sizes are real, weights are random, nothing is fetched."""

from __future__ import annotations

from typing import Any, cast

import torch
from omegaconf import OmegaConf

from live2diff.config import compose
from live2diff.errors import UsageError
from live2diff.model.build import build
from live2diff.model.video_model import VideoModel

# What `conf/model/sd15.yaml` fetches, as sizes. TAESD is the VAE that streams use for speed.
_SD15: dict[str, Any] = {
    "unet": {"pretrained": None, "motion": None, "depth_branch": None, "config": {}},
    "vae": {"pretrained": None, "kind": "AutoencoderTiny", "config": {}},
    "text": {
        "pretrained": None,
        "config": {
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
        },
    },
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
