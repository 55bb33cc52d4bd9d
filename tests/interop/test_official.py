"""The public release's own numbers, recorded from the authors' UNets at a small width."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from live2diff.errors import CheckpointError
from live2diff.interop.animatediff import load_motion_modules
from live2diff.interop.official import unet_from_official
from live2diff.weights import read_weights
from tests.model.tiny import make_unet

FIXTURE = Path(__file__).parents[1] / "fixtures" / "official_unet"
META = json.loads((FIXTURE / "meta.json").read_text())
TOLERANCE = 1e-4


def official_weights() -> dict[str, torch.Tensor]:
    """The recorded run's weights: a function of the key alone."""
    return {key: _weight(key, shape) for key, shape in META["state_dict_shapes"].items()}


def _weight(key: str, shape: list[int]) -> torch.Tensor:
    if key.endswith("pos_encoder.pe"):
        _, length, channels = shape
        angle = torch.arange(length)[:, None] * torch.exp(
            torch.arange(0, channels, 2) * (-math.log(10000.0) / channels)
        )
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1)[None]
    generator = torch.Generator().manual_seed(zlib.crc32((META["salt"] + key).encode()))
    x = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        x = x / math.sqrt(x[0].numel())
        return x / 2 if "proj_out" in key or "conv_out" in key else x
    return 0.02 * x if key.endswith("bias") else 1 + 0.02 * x


@pytest.fixture(scope="module")
def weights():
    return official_weights()


@pytest.fixture(scope="module")
def unet(weights):
    return unet_from_official(weights, META["block_out_channels"], META["cross_attention_dim"])


@pytest.fixture(scope="module")
def trace():
    return load_file(FIXTURE / "trace.safetensors")


@pytest.mark.parametrize("mask", ["bidirectional", "warmup_causal"])
def test_whole_clip(unet, trace, mask):
    with torch.no_grad():
        eps = unet(trace["full_sample"], 399, trace["encoder_hidden_states"], trace["full_depth"], mask)
    assert (eps - trace[f"{mask}_noise_pred"]).abs().amax() < TOLERANCE


def test_stream(unet, trace):
    text, timesteps = trace["encoder_hidden_states"], trace["timesteps"]
    rows = META["steps"]
    memory = unet.new_memory(rows, META["latent_height"], META["latent_width"])
    for r in range(rows):
        eps = unet.warm_up(
            memory, r, trace["warmup_sample"][r : r + 1], timesteps[r], text, trace["warmup_depth"]
        )
        assert (eps[0] - trace["warmup_noise_pred"][r]).abs().amax() < TOLERANCE
    for i in range(META["frames"]):
        live = torch.arange(rows) <= i
        eps = unet.step(memory, trace["stream_sample"][i], timesteps, text, trace["stream_depth"][i], live)
        assert (eps - trace["stream_noise_pred"][i])[live].abs().amax() < TOLERANCE, f"tick {i}"


def test_wrapped_file_is_the_same(unet, weights, tmp_path):
    wrapped = {"state_dict": {"module." + key: value for key, value in weights.items()}, "epoch": 3}
    wrapped["state_dict"]["module.grid"] = torch.zeros(1)
    torch.save(wrapped, tmp_path / "live2diff.ckpt")
    read = read_weights(tmp_path / "live2diff.ckpt")
    again = unet_from_official(read, META["block_out_channels"], META["cross_attention_dim"])
    for (name, ours), other in zip(unet.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(ours, other), name


def test_file_without_spatial_weights(unet, weights):
    temporal = {k: v for k, v in weights.items() if "motion_modules" in k or "flow_conv_in" in k}
    with pytest.warns(UserWarning, match="no spatial weights"):
        again = unet_from_official(temporal, META["block_out_channels"], META["cross_attention_dim"])
    own = again.state_dict()
    for name, value in unet.state_dict().items():
        if "motion_modules" in name or "depth_branch" in name:
            assert torch.equal(own[name], value), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("conv_out.bias"), r"1 keys missing \(conv_out.bias\)"),
        (lambda s: s.update({"conv_out.bias": torch.zeros(7)}), r"conv_out.bias \(7,\) instead of \(4,\)"),
        (lambda s: s.update({"extra.weight": torch.zeros(1)}), r"1 keys unexpected \(extra.weight\)"),
    ],
)
def test_wrong_files_are_named(weights, change, message):
    broken = dict(weights)
    change(broken)
    with pytest.raises(CheckpointError, match=message):
        unet_from_official(broken, META["block_out_channels"], META["cross_attention_dim"])


def test_animatediff_initialises_the_motion_modules(weights, unet):
    """Motion weights of the release, with a mid block and longer tables as in AnimateDiff v2."""
    motion = {k: v for k, v in weights.items() if "motion_modules" in k}
    for key in [k for k in motion if k.endswith("pos_encoder.pe")]:
        motion[key] = _weight(key, [1, 32, motion[key].shape[2]])
    source = "down_blocks.3.motion_modules.0."
    motion |= {k.replace(source, "mid_block.motion_modules.0."): v for k, v in motion.items() if source in k}
    widths = {"block_out_channels": META["block_out_channels"], "cross_attention_dim": 64}
    fresh = make_unet(**widths, layers_per_block=2, norm_num_groups=32, motion_num_attention_heads=8)
    before = {k: v.clone() for k, v in fresh.state_dict().items()}
    load_motion_modules(fresh, motion)
    for name, value in fresh.state_dict().items():
        expected = unet.state_dict()[name] if "motion_modules" in name else before[name]
        if name.endswith("pos_embed.pe"):  # the file's 32 positions take the place of 24
            assert value.shape[1] == fresh.config.motion_max_seq_length == 32
            value = value[:, :24]
        assert torch.equal(value, expected), name
