"""Out: each format against the library that reads it, tensor by tensor, and back to the very bits."""

from __future__ import annotations

import re

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file

from live2diff.cli import ckpt, main
from live2diff.interop.animatediff import load_depth_branch, load_motion_modules, read_motion
from live2diff.interop.convert import convert, formats
from live2diff.interop.lora import extract_lora, fit, read_lora
from live2diff.interop.lora.save import LAYOUTS
from live2diff.model.video_model import VideoModel
from live2diff.weights import read_weights
from tests.conftest import ROOT
from tests.interop.exports import tiny_model
from tests.model.tiny import randomise

# A layout without a configuration takes SD1.5's for granted: these are its numbers, at another width.
LIKE_SD15 = {
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "motion_num_attention_heads": 8,
}
# The public layouts' names within one motion module, by hand (FACTS: AnimateDiff's checkpoint).
MODULE = [
    "norm.weight",
    "norm.bias",
    "proj_in.weight",
    "proj_in.bias",
    "proj_out.weight",
    "proj_out.bias",
    "transformer_blocks.0.ff.net.0.proj.weight",
    "transformer_blocks.0.ff.net.0.proj.bias",
    "transformer_blocks.0.ff.net.2.weight",
    "transformer_blocks.0.ff.net.2.bias",
    "transformer_blocks.0.ff_norm.weight",
    "transformer_blocks.0.ff_norm.bias",
    *(f"transformer_blocks.0.norms.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")),
    *(
        f"transformer_blocks.0.attention_blocks.{i}.{name}"
        for i in (0, 1)
        for name in (
            "to_q.weight",
            "to_k.weight",
            "to_v.weight",
            "to_out.0.weight",
            "to_out.0.bias",
            "pos_encoder.pe",
        )
    ),
]
BRANCH = [
    f"flow_conv_in.{layer}.{kind}"
    for layer in ("conv_in", *(f"blocks.{i}" for i in range(6)), "conv_out")
    for kind in ("weight", "bias")
]


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A model folder; the files that `live2diff export` adds to it are no matter here."""
    folder = tmp_path_factory.mktemp("export") / "mine"
    model = tiny_model(unet=LIKE_SD15)
    model.save(folder)
    return folder


@pytest.fixture(scope="module")
def model(export):
    return VideoModel.load(export)


def motion_of(state):
    return {key: tensor for key, tensor in state.items() if ".motion_modules." in key}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype and torch.equal(tensor, second[name]), name


def fresh(**changes):
    """Our UNet with other numbers everywhere: what comes back can only come from the file."""
    unet = tiny_model(unet={**LIKE_SD15, **changes}).unet
    randomise(unet, seed=9)
    return unet


def module_names(blocks: int, layers: int) -> set[str]:
    places = [f"down_blocks.{i}.motion_modules.{j}" for i in range(blocks) for j in range(layers)]
    places += [f"up_blocks.{i}.motion_modules.{j}" for i in range(blocks) for j in range(layers + 1)]
    return {f"{place}.temporal_transformer.{name}" for place in places for name in MODULE}


# -- motion modules -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_motion_mid_block": True},
        {"temporal_transformer_layers_per_block": 2},
        {"motion_max_seq_length": 32, "layers_per_block": 1, "norm_num_groups": 8},
    ],
    ids=str,
)
def test_motion_adapter(tmp_path, changes):
    model = tiny_model(unet={**LIKE_SD15, **changes})
    model.save(tmp_path / "mine")
    lacks = convert(tmp_path / "mine", "motion-adapter", tmp_path / "adapter")
    assert any("spatial weights" in lack for lack in lacks) and any("depth branch" in lack for lack in lacks)
    motion = motion_of(model.unet.state_dict())
    adapter, found = MotionAdapter.from_pretrained(tmp_path / "adapter", output_loading_info=True)
    assert not any(found[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same(dict(adapter.state_dict()), motion)
    again = fresh(**changes)
    load_motion_modules(again, read_motion(tmp_path / "adapter", again), "adapter")
    assert_same(motion_of(again.state_dict()), motion)


def test_diffusers_builds_its_unet_from_our_adapter(export, model, tmp_path):
    """And computes what its own class does with these weights."""
    convert(export, "motion-adapter", tmp_path / "adapter")
    adapter = MotionAdapter.from_pretrained(tmp_path / "adapter")
    base = UNet2DConditionModel(
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
    )
    stock = UNetMotionModel.from_unet2d(base, adapter)
    assert_same(motion_of(stock.state_dict()), motion_of(model.unet.state_dict()))


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_animatediff(export, model, tmp_path, suffix):
    path = tmp_path / f"mm{suffix}"
    lacks = convert(export, "animatediff", path)
    assert not any("assume" in lack for lack in lacks)
    # The file is flat and plain: any reader's torch.load or load_file gives this table.
    state = load_file(path) if suffix == ".safetensors" else torch.load(path, weights_only=True)
    assert set(state) == module_names(blocks=2, layers=2)
    tables = [key for key in state if key.endswith("pos_encoder.pe")]
    assert len(tables) == 2 * len({key.split(".temporal")[0] for key in state})
    assert all(state[key].shape[1] == 24 for key in tables)

    convert(export, "motion-adapter", tmp_path / "adapter")
    stock = MotionAdapter.from_single_file(str(path), config=str(tmp_path / "adapter"))
    assert_same(dict(stock.state_dict()), motion_of(model.unet.state_dict()))

    again = fresh()
    load_motion_modules(again, read_weights(path), path)
    assert_same(motion_of(again.state_dict()), motion_of(model.unet.state_dict()))


def test_animatediff_with_a_mid_block_and_longer_tables(tmp_path):
    """AnimateDiff v2's shape."""
    sizes = {"use_motion_mid_block": True, "motion_max_seq_length": 32}
    model = tiny_model(unet={**LIKE_SD15, **sizes})
    model.save(tmp_path / "mine")
    convert(tmp_path / "mine", "animatediff", tmp_path / "mm.ckpt")
    state = torch.load(tmp_path / "mm.ckpt", weights_only=True)
    middle = {f"mid_block.motion_modules.0.temporal_transformer.{name}" for name in MODULE}
    assert set(state) == module_names(blocks=2, layers=2) | middle
    again = fresh(use_motion_mid_block=True)
    load_motion_modules(again, read_weights(tmp_path / "mm.ckpt"), "mm")
    assert_same(motion_of(again.state_dict()), motion_of(model.unet.state_dict()))


# -- the public release's layout ------------------------------------------------------------------------


def test_depth_branch(export, model, tmp_path):
    lacks = convert(export, "depth-branch", tmp_path / "branch.safetensors")
    assert any("motion modules" in lack for lack in lacks)
    state = load_file(tmp_path / "branch.safetensors")
    assert set(state) == set(BRANCH)
    assert state["flow_conv_in.conv_in.weight"].shape == (16, 4, 3, 3)
    assert state["flow_conv_in.conv_out.weight"].shape == (32, 256, 3, 3)
    again = fresh()
    load_depth_branch(again, read_weights(tmp_path / "branch.safetensors"))
    assert_same(dict(again.depth_branch.state_dict()), dict(model.unet.depth_branch.state_dict()))


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_official(export, model, tmp_path, suffix):
    path = tmp_path / f"live2diff{suffix}"
    lacks = convert(export, "official", path)
    assert len(lacks) == 2 and "VAE, text encoder and depth net" in lacks
    state = read_weights(path)
    own = model.unet.state_dict()
    spatial = {key for key in own if ".motion_modules." not in key and not key.startswith("depth_branch.")}
    assert set(state) == module_names(blocks=2, layers=2) | set(BRANCH) | spatial
    again = fresh()
    load_motion_modules(again, state, path)
    assert_same(dict(again.state_dict()), dict(own))


# -- precision, and what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_a_lower_precision_is_rounded_once_and_said(export, model, tmp_path, dtype, kind):
    lacks = convert(export, "official", tmp_path / "half.safetensors", dtype=dtype)
    assert f"fp32 weights were rounded to {dtype}" in lacks[-1]
    again = fresh()
    load_motion_modules(again, read_weights(tmp_path / "half.safetensors"))
    for name, tensor in model.unet.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.to(kind).float()), name


def test_what_a_precision_cannot_hold_is_named(tmp_path, capsys):
    model = tiny_model()
    with torch.no_grad():
        model.unet.conv_in.bias[0] = 1e6
    model.save(tmp_path / "mine")
    words = ["ckpt", "convert", str(tmp_path / "mine"), "--to", "official", "--dtype", "fp16", "--out"]
    assert main([*words, str(tmp_path / "half.ckpt")]) == 4
    assert "conv_in.bias: holds values that are not finite in fp16" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_higher_precision_loses_nothing(tmp_path):
    tiny_model().to("cpu", torch.bfloat16).save(tmp_path / "half")
    kept = convert(tmp_path / "half", "official", tmp_path / "kept.safetensors")
    wide = convert(tmp_path / "half", "official", tmp_path / "wide.safetensors", dtype="fp32")
    assert kept == wide
    narrow, wide = (load_file(tmp_path / f"{name}.safetensors") for name in ("kept", "wide"))
    assert all(t.dtype == torch.bfloat16 and torch.equal(t.float(), wide[key]) for key, t in narrow.items())


def test_other_sizes_than_a_layout_assumes_are_said(tmp_path):
    tiny_model().save(tmp_path / "mine")
    lacks = " ".join(convert(tmp_path / "mine", "animatediff", tmp_path / "mm.ckpt"))
    assert "heads of the temporal attentions: 4 here, loaders of this layout assume 8" in lacks
    assert "layers in a block: 1 here" in lacks and "groups of the normalisation: 8 here" in lacks


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--to", "animatediff", "--out", "mm.bin"], 2, "must be named .safetensors or .ckpt"),
        (["--to", "animatediff", "--out", "there.ckpt"], 2, "exists already"),
        (["--to", "motion-adapter", "--out", "there.ckpt"], 2, "exists already"),
        (["--to", "lora-kohya", "--out", "lora.safetensors"], 4, "no LoRA adapters"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(export, tmp_path, monkeypatch, capsys, words, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.ckpt").touch()
    assert main(["ckpt", "convert", str(export), *words]) == code
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("error:")] == said[-1:] and message in said[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["there.ckpt"]


def test_a_model_without_a_branch_has_none_to_give(tmp_path, capsys):
    tiny_model(unet={"depth_channels": None}, uses_depth=False).save(tmp_path / "mine")
    words = ["ckpt", "convert", str(tmp_path / "mine"), "--to", "depth-branch", "--out"]
    assert main([*words, str(tmp_path / "branch.ckpt")]) == 4
    assert "nothing that depth-branch could hold" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_command_says_what_is_lost(export, tmp_path, capsys):
    out = tmp_path / "mm.safetensors"
    assert main(["ckpt", "convert", str(export), "--to", "animatediff", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert len(re.findall("^  it does not hold ", said, flags=re.MULTILINE)) == 4
    assert f"next: live2diff ckpt inspect {out}" in said


def test_every_format_can_be_asked_for():
    assert sorted(formats()) == sorted(ckpt.FORMATS)
    documented = (ROOT / "docs/checkpoints.md").read_text()
    assert all(f"`{name}`" in documented for name in formats())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lora(tmp_path, monkeypatch, layout):
    """Adapters that a run trained; loading a run is training's to test."""
    model = tiny_model()
    targets = r".*motion_modules.*attn1\.to_q"
    config = LoraConfig(r=2, lora_alpha=2, target_modules=targets, init_lora_weights=False)
    inject_adapter_in_model(config, model.unet, "style")
    monkeypatch.setattr("live2diff.interop.convert.load_model", lambda run: model)
    lacks = convert("run", f"lora-{layout}", tmp_path / "style.safetensors")
    assert lacks == ["everything but the adapters"]
    layers = fit(read_lora(tmp_path / "style.safetensors"), model)
    expected = extract_lora(model, "style")
    assert layers.keys() == expected.keys() and len(layers) == 6
    for path, layer in layers.items():
        assert torch.equal(layer.down, expected[path].down) and torch.equal(layer.up, expected[path].up)
        assert layer.alpha == expected[path].alpha
