"""AnimateDiff's checkpoints in every wrapping, held against diffusers' own loader."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from diffusers import MotionAdapter, UNetMotionModel
from safetensors.torch import save_file
from torch import nn

from live2diff.errors import CheckpointError
from live2diff.interop.animatediff import load_depth_branch, load_motion_modules, read_motion
from live2diff.interop.sd15 import load_unet
from live2diff.model.unet import CausalUNet
from live2diff.weights import read_weights
from tests.interop.public import (
    UNET,
    animatediff,
    flow_conv_in,
    ldm_unet,
    new_adapter,
    new_unet,
    same,
)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The image model: a folder, diffusers' own copy, and ours."""
    unet = new_unet(seed=1)
    folder = tmp_path_factory.mktemp("base")
    unet.save_pretrained(folder / "unet")
    return folder, unet, load_unet(folder)


def fresh(base) -> CausalUNet:
    """The image model in our form, motion modules at random."""
    return copy.deepcopy(base[2])


def motion_of(state: dict) -> dict:
    return {key: value for key, value in state.items() if "motion_modules." in key}


def write(state, path, wrapping):
    if wrapping == "module":
        state = {f"module.{key}": value for key, value in state.items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": state} if wrapping != "flat" else state, path)
    return path


VERSIONS = {"v1": (24, False), "v2": (32, True), "v3": (32, False)}
WRAPPINGS = [(suffix, how) for suffix in (".ckpt", ".safetensors") for how in ("flat", "wrapped", "module")]


@pytest.mark.parametrize("version", VERSIONS)
def test_equal_to_diffusers(base, tmp_path, version):
    length, middle = VERSIONS[version]
    adapter = new_adapter(seed=2, length=length, middle=middle)
    state = animatediff(adapter)
    # diffusers reads no `module.` prefix, and would ask the hub for a config.
    plain = write(state, tmp_path / "plain.ckpt", "flat")
    adapter.save_config(tmp_path / "config")
    oracle = MotionAdapter.from_single_file(str(plain), config=str(tmp_path / "config"))
    theirs = UNetMotionModel.from_unet2d(base[1], oracle).state_dict()
    expected = {
        key: value for key, value in theirs.items() if not key.startswith("mid_block.motion_modules.")
    }
    for suffix, wrapping in WRAPPINGS if version == "v1" else [(".ckpt", "module"), (".safetensors", "flat")]:
        path = write(state, tmp_path / f"{wrapping}{suffix}", wrapping)
        ours = fresh(base)
        load_motion_modules(ours, read_motion(path, ours), path)
        own = {key: value for key, value in ours.state_dict().items() if not key.startswith("depth_branch.")}
        same(own, expected)
        assert ours.config["motion_max_seq_length"] == length


def test_mid_block_module_is_kept_where_the_model_has_one(tmp_path):
    adapter = new_adapter(seed=2, length=32, middle=True)
    path = write(animatediff(adapter), tmp_path / "mm.ckpt", "flat")
    ours = CausalUNet(**UNET, use_motion_mid_block=True)
    load_motion_modules(ours, read_weights(path))
    same(motion_of(ours.state_dict()), adapter.state_dict())


def test_one_forward_is_equal(base, tmp_path):
    """Eight frames that all see each other. Where diffusers normalises over frames, ours does per frame."""
    adapter = new_adapter(seed=2)
    theirs = UNetMotionModel.from_unet2d(base[1], adapter).eval()
    for module in theirs.modules():
        if type(module).__name__ == "AnimateDiffTransformer3D":
            module.norm = PerFrame(module.norm)
    ours = fresh(base).eval()
    path = write(animatediff(adapter), tmp_path / "mm.ckpt", "wrapped")
    load_motion_modules(ours, read_motion(path, ours))
    sample, text = torch.randn(1, 4, 8, 8, 8), torch.randn(1, 7, 32)
    with torch.no_grad():
        expected = theirs(sample, 399, text.repeat_interleave(8, dim=0)).sample
        got = ours(sample, 399, text, mask="bidirectional")
    assert expected.std() > 0.1
    assert (got - expected).abs().max() < 1e-5 * expected.abs().max()


class PerFrame(nn.Module):
    """A group norm over (B, C, F, H, W), one frame at a time."""

    def __init__(self, norm: nn.GroupNorm):
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)).transpose(1, 2)


@pytest.mark.parametrize("where", ["own", "inside"])
def test_motion_adapter_folder(base, tmp_path, where):
    adapter = new_adapter(seed=4, length=32)
    adapter.save_pretrained(tmp_path / "motion_adapter")
    ours = fresh(base)
    folder = tmp_path / "motion_adapter" if where == "own" else tmp_path
    load_motion_modules(ours, read_motion(folder, ours), folder)
    same(motion_of(ours.state_dict()), adapter.state_dict())


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin"])
def test_motion_adapter_in_other_files(base, tmp_path, name):
    adapter = new_adapter(seed=4)
    adapter.save_config(tmp_path)
    state = {key: value.half() for key, value in adapter.state_dict().items()}
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / name)
    ours = fresh(base)
    load_motion_modules(ours, read_motion(tmp_path, ours))
    same(motion_of(ours.state_dict()), {key: value.float() for key, value in state.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "ControlNetModel"}, "is 'ControlNetModel', not diffusers' MotionAdapter"),
        ({"motion_num_attention_heads": 4}, "motion_num_attention_heads=4, this model has 8"),
        ({"conv_in_channels": 9}, "is PIA's"),
        ({"motion_layers_per_block": 10**9}, "motion_layers_per_block cannot be meant"),
    ],
)
def test_other_adapters_are_named(base, tmp_path, change, message):
    adapter = new_adapter()
    adapter.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=message):
        read_motion(tmp_path, base[2])


def test_notes_beside_the_weights_are_dropped(base, tmp_path):
    adapter = new_adapter(seed=2)
    state = {**animatediff(adapter), "animatediff_config": {"unet": [1, 2]}, "global_step": 10}
    torch.save(state, tmp_path / "v3_sd15_mm.ckpt")
    ours = fresh(base)
    load_motion_modules(ours, read_motion(tmp_path / "v3_sd15_mm.ckpt", ours))
    same(motion_of(ours.state_dict()), adapter.state_dict())


def test_a_file_without_positions_keeps_ours(base):
    adapter = new_adapter(seed=2)
    state = {key: value for key, value in animatediff(adapter).items() if "pos_encoder" not in key}
    ours = fresh(base)
    load_motion_modules(ours, state)
    same(motion_of(ours.state_dict()), adapter.state_dict())


def test_spatial_weights_of_a_motion_checkpoint_are_left_out(base):
    """AnimateDiff's training saves the image model along; the user's own stays."""
    ours = fresh(base)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    other = new_unet(seed=9).state_dict()
    adapter = new_adapter(seed=2)
    load_motion_modules(ours, {**other, **animatediff(adapter)})
    same(ours.state_dict(), {**before, **adapter.state_dict()})


@pytest.mark.parametrize("spatial", [False, True])
def test_the_public_checkpoint_brings_its_depth_branch(base, tmp_path, spatial):
    adapter, other = new_adapter(seed=2), new_unet(seed=9).state_dict()
    state = {**animatediff(adapter), **flow_conv_in(), **(other if spatial else {})}
    state["down_blocks.0.grid"] = torch.zeros(3)
    path = write(state, tmp_path / "live2diff.ckpt", "module")
    ours = fresh(base)
    load_motion_modules(ours, read_motion(path, ours), path)
    branch = {key.replace("flow_conv_in", "depth_branch"): value for key, value in flow_conv_in().items()}
    image = other if spatial else base[1].state_dict()
    same(ours.state_dict(), {**image, **adapter.state_dict(), **branch})


@pytest.mark.parametrize("prefix", ["flow_conv_in", "depth_branch"])
def test_depth_branch_alone(base, prefix):
    ours = fresh(base)
    assert not ours.depth_branch.conv_out.weight.any(), "a fresh branch must change nothing"
    state = {key.replace("flow_conv_in", prefix): value for key, value in flow_conv_in().items()}
    load_depth_branch(ours, state)
    for key, value in flow_conv_in().items():
        assert torch.equal(ours.get_parameter(key.replace("flow_conv_in", "depth_branch")), value)


ATTENTION = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks"


def table(length: int, channels: int = 32) -> torch.Tensor:
    return torch.zeros(1, length, channels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(f"{ATTENTION}.0.to_q.weight"), "1 keys missing .*attn1.to_q"),
        (lambda s: s.update({"extra.weight": torch.zeros(1)}), r"1 keys unexpected \(extra.weight\)"),
        (
            lambda s: s.update({f"{ATTENTION}.0.to_q.weight": torch.zeros(2, 2)}),
            r"\(2, 2\) instead of \(32, 32\)",
        ),
        (lambda s: s.update({f"{ATTENTION}.1.pos_encoder.pe": table(24)}), "differs from the first"),
        (lambda s: s.pop(f"{ATTENTION}.0.pos_encoder.pe"), "differs from the first"),
        (
            lambda s: s.update({f"{ATTENTION}.{i}.pos_encoder.pe": table(20) for i in (0, 1)}),
            "no table of positions",
        ),
        (lambda s: s.update({k: v[:, :8] for k, v in s.items() if k.endswith(".pe")}), "8 positions, fewer"),
        (
            lambda s: s.update({k: v * float("nan") for k, v in s.items() if k.endswith(".pe")}),
            "first attention",
        ),
        (
            lambda s: s.update({k: v * float("nan") for k, v in s.items() if "proj_in" in k}),
            "no finite floats",
        ),
    ],
)
def test_wrong_weights_are_named_and_change_nothing(base, change, message):
    state = animatediff(new_adapter(seed=2))
    change(state)
    ours = base[2]
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(CheckpointError, match=message):
        load_motion_modules(ours, state, "mm.ckpt")
    same(ours.state_dict(), before)


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (lambda: ldm_unet(new_unet().state_dict()), "a Stable Diffusion 1.5 model"),
        (lambda: {"lora_unet_down_blocks_0.lora_down.weight": torch.zeros(1, 4)}, "a LoRA"),
        (
            lambda: {k: v for k, v in animatediff(new_adapter()).items() if "blocks.3." not in k},
            "motion modules for Stable Diffusion XL",
        ),
        (
            lambda: {**animatediff(new_adapter()), "conv_in.weight": torch.zeros(32, 9, 3, 3)},
            "PIA's motion modules",
        ),
    ],
)
def test_other_files_are_named(base, state, kind):
    with pytest.raises(CheckpointError, match=f"mm.ckpt: is {kind}, not motion modules"):
        load_motion_modules(base[2], state(), "mm.ckpt")
