"""The depth network on its own: sizes, gradients, saving and loading, files that are not what they say."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from live2diff.depth import DPT, PRESETS, DPTConfig
from live2diff.errors import CheckpointError, UsageError

TINY = PRESETS["tiny"]
# A hybrid with every part of the real one, small enough for a test.
HYBRID = DPTConfig(64, 16, 32, 2, (0, 1), (256, 512, 32, 32), 16, resnet=(1, 1, 1))
both_kinds = pytest.mark.parametrize("config", [TINY, HYBRID], ids=["vit", "hybrid"])


@both_kinds
@pytest.mark.parametrize("size", [(64, 64), (48, 80), (33, 17), (200, 100)])
def test_any_image_size_gives_depth_of_that_size(config, size):
    depth = DPT(config)(torch.rand(2, 3, *size) * 2 - 1)
    assert depth.shape == (2, *size)
    assert depth.isfinite().all() and depth.min() >= 0 and depth.std() > 0


def test_squash_keeps_the_picture_in_place():
    """A picture stretched to twice its width gives its depth stretched to twice the width, nearly."""
    model, images = DPT(TINY).eval(), torch.rand(1, 3, 8, 8) * 2 - 1
    square = torch.nn.functional.interpolate(images, (64, 64), mode="bilinear")
    wide = torch.nn.functional.interpolate(images, (64, 128), mode="bilinear")
    with torch.no_grad():
        expected = torch.nn.functional.interpolate(model(square)[None], (64, 128), mode="bilinear")[0]
        error = (model(wide) - expected).abs().max() / (expected.max() - expected.min())
    assert error < 0.1


def test_shrinking_averages_what_it_cannot_show():
    """One-pixel stripes look grey from afar; picking pixels would show the network black or white."""
    model, white = DPT(TINY).eval(), torch.ones(1, 3, 448, 448)
    stripes, grey = white.clone(), torch.zeros_like(white)
    stripes[..., 1::2] = -1
    with torch.no_grad():
        unlike_grey = (model(stripes) - model(grey)).abs().max()
        assert unlike_grey < 0.2 * (model(white) - model(grey)).abs().max()


@both_kinds
def test_bfloat16_is_close_to_float32(config):
    model, images = DPT(config).eval(), torch.rand(2, 3, 100, 60) * 2 - 1
    with torch.no_grad():
        expected = model(images)
        depth = model.bfloat16()(images.bfloat16())
    assert depth.dtype == torch.bfloat16
    torch.testing.assert_close(depth.float(), expected, atol=0.03, rtol=0)


@both_kinds
def test_images_in_a_batch_do_not_mix(config):
    model, images = DPT(config).eval(), torch.rand(3, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(model(images[1:2])[0], model(images)[1], atol=1e-5, rtol=1e-5)


@both_kinds
def test_a_fresh_network_trains_every_parameter(config):
    """At the second step: timm starts each ResNet branch behind a zero scale, which the first step opens."""
    model, images = DPT(config), torch.rand(2, 3, 64, 64) * 2 - 1
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-3)
    model(images).square().mean().backward()
    optimiser.step()
    optimiser.zero_grad()
    model(images).square().mean().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not idle


@both_kinds
def test_forward_waits_for_no_value(config):
    """Meta tensors hold no values: a host sync or a branch on one raises."""
    with torch.device("meta"):
        assert DPT(config)(torch.empty(2, 3, 40, 72)).shape == (2, 40, 72)


def test_tiny_is_cheap():
    """Bounded in operations, not milliseconds, to be the same on any machine; 20 ms on one slow core."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        DPT(TINY)(torch.zeros(8, 3, 64, 64))
    assert counter.get_total_flops() < 1.2e9
    assert sum(p.numel() for p in DPT(TINY).parameters()) < 500_000


@both_kinds
def test_save_and_load_is_bit_identical(config, tmp_path):
    model, images = DPT(config).eval(), torch.rand(1, 3, 64, 64)
    model.save(tmp_path / "depth")
    again = DPT.load(tmp_path / "depth")
    assert again.config == config and not again.training
    assert sorted(os.listdir(tmp_path / "depth")) == ["config.json", "model.safetensors"]
    for (name, mine), (other_name, other) in zip(
        model.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert name == other_name and torch.equal(mine, other)
    with torch.no_grad():
        assert torch.equal(model(images), again(images))


def test_a_loaded_network_does_not_hang_on_its_file(tmp_path):
    DPT(TINY).save(tmp_path / "depth")
    model = DPT.load(tmp_path / "depth")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with open(tmp_path / "depth" / "model.safetensors", "r+b") as file:
        file.write(b"\0" * 1_000_000)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_loading_draws_no_random_numbers(tmp_path):
    DPT(TINY).save(tmp_path / "depth")
    state = torch.get_rng_state()
    DPT.load(tmp_path / "depth")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("config", [*PRESETS.values(), HYBRID], ids=[*PRESETS, "small"])
def test_config_round_trips_through_json(config):
    assert DPTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 60},
        {"image_size": 24},  # three patches: an odd grid cannot be halved and doubled back
        {"patch": 0},
        {"width": 10**9},
        {"width": 64.0},
        {"heads": 3},
        {"heads": True},
        {"taps": (0, 1, 2)},
        {"taps": (0, 2, 1, 3)},
        {"taps": (0, 1, 2, 10**6)},
        {"taps": 4},
        {"neck": (16, 32, 64)},
        {"features": 15},
        {"features": None},
        {"resnet": (1, 1)},
        {"resnet": (1, 1, 1)},
    ],
    ids=str,
)
def test_impossible_configs_are_refused(change):
    with pytest.raises(UsageError, match="depth network"):
        dataclasses.replace(TINY, **change)


class _Code:
    def __reduce__(self):
        return os.system, ("touch executed",)


def _weights(**changes):
    return {**DPT(TINY).state_dict(), **changes}


BAD_CONFIGS = {
    "not-json": b"<html>",
    "not-text": b"\xff\xfe\x00",
    "list": b"[]",
    "deep": b"[" * 100_000,
    "huge": b" " * 2_000_000,
    "other-format": json.dumps({"format": "x", **TINY.to_dict()}).encode(),
    "missing-key": b'{"format": "live2diff-dpt-1", "patch": 8}',
    "bad-value": json.dumps({"format": "live2diff-dpt-1", **TINY.to_dict(), "width": 1e9}).encode(),
    "too-deep": json.dumps({"format": "live2diff-dpt-1", **TINY.to_dict(), "taps": [0, 1, 2, 999]}).encode(),
    "other-size": json.dumps({"format": "live2diff-dpt-1", **TINY.to_dict(), "width": 32}).encode(),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_bad_config_files(name, tmp_path):
    DPT(TINY).save(tmp_path / "depth")
    (tmp_path / "depth" / "config.json").write_bytes(BAD_CONFIGS[name])
    with pytest.raises(CheckpointError) as caught:
        DPT.load(tmp_path / "depth")
    assert "\n" not in str(caught.value) and str(tmp_path / "depth") in str(caught.value)


def test_missing_files(tmp_path):
    with pytest.raises(CheckpointError, match="config.json: no such file"):
        DPT.load(tmp_path / "depth")
    DPT(TINY).save(tmp_path / "depth")
    (tmp_path / "depth" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model.safetensors: no such file"):
        DPT.load(tmp_path / "depth")


BAD_BYTES = {
    "web-page": (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
    "lfs-pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    "empty": (b"", "no readable weight file"),
    "noise": (bytes(range(256)) * 40, "no readable weight file"),
    "zip-only": (b"PK\x03\x04" + b"\0" * 60, "no readable weight file"),
    "bare-pickle": (pickle.dumps({"a": 1.0}), "pretrained|no plain tensor|no readable"),
    "code": (pickle.dumps(_Code()), "no readable weight file"),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("name", BAD_BYTES)
def test_files_that_are_no_weights(name, suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, reason = BAD_BYTES[name]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        DPT.load_midas(path, "tiny")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()


def test_code_in_a_real_checkpoint_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": _weights(), "callbacks": _Code()}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="no readable weight file"):
        DPT.load_midas(tmp_path / "weights.pt", "tiny")
    assert not (tmp_path / "executed").exists()


def test_a_checkpoint_cut_short(tmp_path):
    for name in ("weights.pt", "weights.safetensors"):
        path = tmp_path / name
        (torch.save if name.endswith(".pt") else save_file)(_weights(), path)
        path.write_bytes(path.read_bytes()[:-5000])
        with pytest.raises(CheckpointError, match="no readable weight file"):
            DPT.load_midas(path, "tiny")


KEY = "scratch.layer1_rn.weight"
BAD_TABLES = {
    "list": ([torch.zeros(1)], "no table of named weights"),
    "tensor": (torch.zeros(3), "no table of named weights"),
    "empty": ({}, "no table of named weights"),
    "numbered": ({0: torch.zeros(1)}, "no table of named weights"),
    "number": ({KEY: 3.0}, f"{KEY} is no plain tensor"),
    "sparse": ({KEY: torch.eye(3).to_sparse()}, f"{KEY} is no plain tensor"),
    "meta": ({KEY: torch.zeros(3, device="meta")}, f"{KEY} is no plain tensor"),
    "missing": (
        {"a": torch.zeros(1)},
        r"\d+ keys missing \(pretrained.model.cls_token, .*1 keys unexpected \(a\)",
    ),
    "unexpected": (lambda: _weights(**{"extra\n\x1b[2J": torch.zeros(1)}), r"1 keys unexpected \('extra"),
    "misshapen": (
        lambda: _weights(**{KEY: torch.zeros(2, 2)}),
        rf"1 keys of another shape \({KEY} \(2, 2\) instead of \(16, 16, 3, 3\)\)",
    ),
    "nan": (lambda: _weights(**{KEY: torch.full((16, 16, 3, 3), float("nan"))}), f"{KEY} holds values"),
    "integers": (
        lambda: _weights(**{KEY: torch.ones(16, 16, 3, 3, dtype=torch.int32)}),
        f"{KEY} holds values",
    ),
    "scalar-positions": (
        lambda: _weights(**{"pretrained.model.pos_embed": torch.zeros(())}),
        "another shape",
    ),
    "empty-positions": (
        lambda: _weights(**{"pretrained.model.pos_embed": torch.zeros(1, 0, 64)}),
        "another shape",
    ),
    "odd-positions": (
        lambda: _weights(**{"pretrained.model.pos_embed": torch.zeros(1, 8, 64)}),
        "another shape",
    ),
}


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("name", BAD_TABLES)
def test_checkpoints_that_do_not_fit(name, tmp_path):
    content, reason = BAD_TABLES[name]
    torch.save(content() if callable(content) else content, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=reason) as caught:
        DPT.load_midas(tmp_path / "weights.pt", "tiny")
    assert str(caught.value).isprintable() and "weights.pt" in str(caught.value)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    for name, reason in (("pipe.pt", "is not a file"), ("", "is not a file"), ("none.pt", "no such file")):
        with pytest.raises(CheckpointError, match=reason):
            DPT.load_midas(tmp_path / name)
    with pytest.raises(UsageError, match="dpt_hybrid"):
        DPT.load_midas(tmp_path / "none.pt", "dpt_giant")


def test_wrapped_and_half_precision_checkpoints_load(tmp_path):
    weights = {key: value.half() for key, value in _weights().items()}
    for wrapped in (weights, {"state_dict": weights}, {"model": weights, "optimizer": {"lr": 1.0}}):
        torch.save(wrapped, tmp_path / "weights.pt")
        loaded = DPT.load_midas(tmp_path / "weights.pt", "tiny").state_dict()
        assert all(torch.equal(loaded[key], value.float()) for key, value in weights.items())


def test_saving_does_not_depend_on_memory_layout(tmp_path):
    model = DPT(TINY)
    model.save(tmp_path / "a")
    model.to(memory_format=torch.channels_last).save(tmp_path / "b")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(first[key], second[key]) for key in first)
