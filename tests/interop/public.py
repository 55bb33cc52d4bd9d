"""Checkpoints in the layouts in which they are published, from narrow random models.

The names are written down by hand here, from the public files, and not taken from any converter.
"""

from __future__ import annotations

import re

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, MotionAdapter, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from live2diff.model.text import character_tokenizer
from tests.model.tiny import randomise

State = dict[str, torch.Tensor]

# What differs from SD1.5's sizes; widening where SD1.5 widens, so that there are the same shortcuts.
WIDTHS = (32, 64, 96, 96)
UNET = {"block_out_channels": list(WIDTHS), "norm_num_groups": 8, "cross_attention_dim": 32}
VAE = {"block_out_channels": [8, 16, 24, 24], "norm_num_groups": 8}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": 514,
    "bos_token_id": 512,
    "eos_token_id": 513,
    "pad_token_id": 513,
}


def new_unet(seed: int = 0, **changes) -> UNet2DConditionModel:
    unet = UNet2DConditionModel(**{**UNET, "attention_head_dim": 8, **changes})
    randomise(unet, seed)
    return unet.eval()


def new_vae(seed: int = 0, **changes) -> AutoencoderKL:
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    vae = AutoencoderKL(**{**VAE, **blocks, "layers_per_block": 2, "scaling_factor": 0.18215, **changes})
    randomise(vae, seed)
    return vae.eval()


def new_text(seed: int = 0, **changes) -> CLIPTextModel:
    text = CLIPTextModel(CLIPTextConfig(**{**TEXT, "hidden_act": "quick_gelu", **changes}))
    randomise(text, seed)
    return text.eval()


def new_adapter(seed: int = 0, length: int = 24, middle: bool = False) -> MotionAdapter:
    adapter = MotionAdapter(
        block_out_channels=WIDTHS,
        motion_num_attention_heads=8,
        motion_max_seq_length=length,
        use_motion_mid_block=middle,
    )
    randomise(adapter, seed)
    return adapter.eval()


def save_folder(folder, unet=None, vae=None, text=None) -> None:
    """A model in diffusers' layout, as on the hub."""
    (unet or new_unet()).save_pretrained(folder / "unet")
    (vae or new_vae()).save_pretrained(folder / "vae")
    (text or new_text()).save_pretrained(folder / "text_encoder")
    character_tokenizer().save_pretrained(folder / "tokenizer")


# -- Stable Diffusion's single file ---------------------------------------------------------------------


def ldm_unet(state: State, prefix: str = "model.diffusion_model.") -> State:
    """diffusers' names -> the original's."""
    return {prefix + _ldm_unet_key(key): value for key, value in state.items()}


def _ldm_unet_key(key: str) -> str:
    for ours, theirs in (
        ("time_embedding.linear_1", "time_embed.0"),
        ("time_embedding.linear_2", "time_embed.2"),
        ("conv_in", "input_blocks.0.0"),
        ("conv_norm_out", "out.0"),
        ("conv_out", "out.2"),
    ):
        if key.startswith(f"{ours}."):
            return theirs + key.removeprefix(ours)
    match = re.fullmatch(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.+)", key)
    if match:
        side, block, kind, layer, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
        if side == "down":
            # Twelve blocks: conv_in, then per level two layers and a downsampler; the last level has none.
            number = 1 + 3 * block + (2 if kind == "downsamplers" else layer)
            at = f"input_blocks.{number}"
        else:
            number = 3 * block + (2 if kind == "upsamplers" else layer)
            at = f"output_blocks.{number}"
        if kind == "downsamplers":
            return f"{at}.0.op.{rest.removeprefix('conv.')}"
        if kind == "upsamplers":
            return f"{at}.{1 if block == 0 else 2}.{rest}"  # the first level has no attention before it
        return f"{at}.1.{rest}" if kind == "attentions" else f"{at}.0.{_ldm_resnet(rest)}"
    match = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", key)
    assert match, key
    if match[1] == "attentions":
        return f"middle_block.1.{match[3]}"
    return f"middle_block.{2 * int(match[2])}.{_ldm_resnet(match[3])}"


def _ldm_resnet(rest: str) -> str:
    names = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
    part, _, kind = rest.partition(".")
    return f"{names[part]}.{kind}"


def ldm_vae(state: State, prefix: str = "first_stage_model.") -> State:
    """diffusers' names -> the original's, where attention is a convolution of one pixel."""
    result = {}
    for key, value in state.items():
        name = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        name = name.replace("mid_block.attentions.0", "mid.attn_1")
        name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{3 - int(m[1])}.block", name)
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)
        if "mid.attn_1" in name:
            for ours, theirs in (
                ("group_norm", "norm"),
                ("to_q", "q"),
                ("to_k", "k"),
                ("to_v", "v"),
                ("to_out.0", "proj_out"),
            ):
                name = name.replace(f"attn_1.{ours}.", f"attn_1.{theirs}.")
            if name.endswith("weight") and value.ndim == 2:
                value = value[:, :, None, None]
        result[prefix + name] = value.clone()
    return result


def ldm_text(state: State, prefix: str = "cond_stage_model.transformer.text_model.") -> State:
    named = {prefix + key.removeprefix("text_model."): value for key, value in state.items()}
    return {**named, f"{prefix}embeddings.position_ids": torch.arange(77)[None]}


def spare_keys(unet: State) -> State:
    """What Stable Diffusion's own files hold besides: the noise schedule, and an average of the UNet."""
    average = {
        "model_ema." + key.removeprefix("model.").replace(".", ""): torch.zeros_like(value)
        for key, value in unet.items()
    }
    steps = {"betas", "alphas_cumprod", "sqrt_one_minus_alphas_cumprod", "posterior_mean_coef1"}
    schedule = {name: torch.linspace(0, 1, 1000) for name in sorted(steps)}
    counters = {
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.num_updates": torch.tensor(3, dtype=torch.int32),
    }
    return {**average, **schedule, **counters}


def single_file(unet=None, vae=None, text=None, spare: bool = True) -> State:
    state = {}
    if unet is not None:
        state |= ldm_unet(unet.state_dict())
        if spare:
            state |= spare_keys(state)
    if vae is not None:
        state |= ldm_vae(vae.state_dict())
    if text is not None:
        state |= ldm_text(text.state_dict())
    return state


# -- AnimateDiff ----------------------------------------------------------------------------------------


def animatediff(adapter: MotionAdapter) -> State:
    """A MotionAdapter's weights by AnimateDiff's names."""
    result = {}
    for key, value in adapter.state_dict().items():
        head, number, rest = re.fullmatch(r"(.*motion_modules\.)(\d)\.(.*)", key).groups()  # pyright: ignore
        at = f"{head}{number}.temporal_transformer."
        block = "transformer_blocks.0."
        rest = rest.removeprefix(block) if (inner := rest.startswith(block)) else rest
        at += block if inner else ""
        if rest == "pos_embed.pe":
            for i in (0, 1):
                result[f"{at}attention_blocks.{i}.pos_encoder.pe"] = value.clone()
            continue
        rest = re.sub(r"^attn([12])\.", lambda m: f"attention_blocks.{int(m[1]) - 1}.", rest)
        rest = re.sub(r"^norm([12])\.", lambda m: f"norms.{int(m[1]) - 1}.", rest)
        rest = re.sub(r"^norm3\.", "ff_norm.", rest)
        result[at + rest] = value.clone()
    return result


def flow_conv_in(width: int = WIDTHS[0], seed: int = 5) -> State:
    """Live2Diff's depth branch."""
    generator = torch.Generator().manual_seed(seed)
    channels = {"conv_in": (4, 16), "conv_out": (256, width)}
    steps = [(16, 16), (16, 32), (32, 32), (32, 96), (96, 96), (96, 256)]
    channels |= {f"blocks.{i}": pair for i, pair in enumerate(steps)}
    state = {}
    for name, (before, after) in channels.items():
        state[f"flow_conv_in.{name}.weight"] = torch.randn(after, before, 3, 3, generator=generator) / 30
        state[f"flow_conv_in.{name}.bias"] = torch.randn(after, generator=generator) / 30
    return state


# -- TAESD ----------------------------------------------------------------------------------------------


def taesd_halves(vae: AutoencoderTiny) -> tuple[State, State]:
    """The author's two files: numbered layers, the decoder's counted from the one after its clamp."""
    encoder, decoder = {}, {}
    for key, value in vae.state_dict().items():
        half, _, rest = key.partition(".layers.")
        number, _, name = rest.partition(".")
        if half == "encoder":
            encoder[f"{number}.{name}"] = value.clone()
        else:
            decoder[f"{int(number) + 1}.{name}"] = value.clone()
    return encoder, decoder


def same(first: State, second: State) -> None:
    """Assert that two states are equal, name by name and bit by bit."""
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
