"""A narrow SD1.5, so that every public key has its place, and diffusers' pipeline with the same weights."""

from __future__ import annotations

import copy
import functools

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from live2diff.depth import DPT, PRESETS
from live2diff.model.text import TextEncoder, character_tokenizer
from live2diff.model.unet import CausalUNet
from live2diff.model.vae import new_vae
from live2diff.model.video_model import VideoModel
from live2diff.settings import Settings, TextSettings
from tests.model.tiny import randomise

WIDTHS = (32, 64, 96, 96)  # widening where SD1.5 widens, so that it has the same shortcuts
TEXT = 32


def make_model(text_width: int = TEXT, **changes) -> VideoModel:
    """Random weights in every layer. `text_width` of both the text encoder and the UNet's cross-attention."""
    return copy.deepcopy(_make_model(text_width, **changes))


@functools.cache
def _make_model(text_width: int, **changes) -> VideoModel:
    unet = CausalUNet(
        block_out_channels=WIDTHS,
        norm_num_groups=8,
        cross_attention_dim=text_width,
        num_attention_heads=4,
        motion_num_attention_heads=4,
        **changes,
    )
    tokenizer = character_tokenizer()
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=text_width,
            intermediate_size=2 * text_width,
            num_hidden_layers=2,
            num_attention_heads=4,
            **ids,  # pyright: ignore[reportArgumentType]
        )
    )
    for seed, part in enumerate((unet, clip)):
        randomise(part, seed)
    vae = new_vae("AutoencoderKL", {"block_out_channels": [8], "norm_num_groups": 8, "scaling_factor": 1.0})
    settings = Settings(vae_scaling=1.0, text=TextSettings(max_length=77), size=(32, 32))
    return VideoModel(
        unet.eval(), vae, TextEncoder(tokenizer, clip, settings.text), DPT(PRESETS["tiny"]), settings
    )


def make_pipeline(model: VideoModel) -> StableDiffusionPipeline:
    """diffusers' image pipeline with copies of the model's spatial weights and text encoder: its loaders are
    what ours is held against."""
    unet = UNet2DConditionModel(
        block_out_channels=WIDTHS,
        norm_num_groups=8,
        cross_attention_dim=model.unet.config.cross_attention_dim,
        attention_head_dim=4,
    )
    ours = model.unet.state_dict()
    unet.load_state_dict({key: ours[key] for key in unet.state_dict()})
    text = CLIPTextModel(model.text.model.config)
    text.load_state_dict(model.text.model.state_dict())
    return StableDiffusionPipeline(
        vae=model.vae,
        text_encoder=text.eval(),
        tokenizer=character_tokenizer(),
        unet=unet.eval(),
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def weights(model: VideoModel) -> dict[str, torch.Tensor]:
    """Copies of all weights a LoRA can change, and of all others, by path."""
    both = {"unet": model.unet, "text": model.text.model}
    return {
        f"{part}.{key}": value.clone()
        for part, root in both.items()
        for key, value in root.state_dict().items()
    }


def predict(model: VideoModel, frames: int = 3, prompt: str = "a cat") -> torch.Tensor:
    """What the UNet makes of fixed noise and a prompt: spatial, temporal and text weights all play a part."""
    generator = torch.Generator().manual_seed(5)
    sample = torch.randn(1, 4, frames, 8, 8, generator=generator)
    with torch.no_grad():
        return model.unet(sample, 399, model.text([prompt]), sample.flip(0), "warmup_causal")
