"""What is no LoRA for this model is refused in one line that says what and where, and changes nothing."""

from __future__ import annotations

import json
import os

import pytest
import torch

from live2diff.errors import CheckpointError
from live2diff.interop.lora import add_lora, lora_names, read_lora
from tests.interop.lora import files
from tests.interop.lora.models import make_model, weights

Q = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture
def good(model):
    return files.kohya(files.random_pairs(model, f"{files.ATTENTION}|{files.TEXT_ATTENTION}"))


@pytest.fixture(autouse=True)
def unharmed(model):
    before = weights(model)
    yield
    assert not lora_names(model)
    after = weights(model)
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in before)


def refused(model, path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        add_lora(model, path)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500, message
    for word in (str(path), *words):
        assert word in message, message


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("dora_scale", "DoRA"),
        ("hada_w1_a", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("oft_blocks", "OFT"),
        ("on_input", "IA3"),
        ("a1.weight", "GLoRA"),
        ("diff", "full difference"),
        ("lora_B.bias", "LoRA with biases"),
    ],
)
def test_other_kinds_of_adapter(model, good, tmp_path, key, kind):
    good[f"{Q}.{key}"] = torch.zeros(4, 4)
    refused(model, files.save(good, tmp_path / "x.safetensors"), f"holds {kind}", f"{Q}.{key}")


def test_dora_by_its_configuration(model, tmp_path):
    pairs = files.diffusers_peft(files.random_pairs(model, files.ATTENTION))
    header = json.dumps({"unet.use_dora": True, "unet.lora_alpha": 4})
    refused(model, files.save(pairs, tmp_path / "x.safetensors", lora_adapter_metadata=header), "DoRA")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(f"{Q}.lora_up.weight"), ("lacks its other half", Q)),
        (lambda t: t.update({f"{Q}.lora_up.weight": torch.zeros(32, 5)}), ("no common rank", Q)),
        (lambda t: t.update({f"{Q}.lora_down.weight": torch.zeros(())}), ("no common rank", Q)),
        (lambda t: t[f"{Q}.lora_down.weight"].fill_(float("nan")), ("no finite floats", Q)),
        (
            lambda t: t.update({f"{Q}.lora_up.weight": torch.zeros(32, 1, dtype=torch.int8)}),
            ("finite floats", Q),
        ),
        (lambda t: t.update({f"{Q}.alpha": torch.tensor(float("inf"))}), ("no finite floats", "alpha")),
        (lambda t: t.update({f"{Q}.alpha": torch.ones(2)}), ("2 values instead of one", "alpha")),
        (lambda t: t.update({"epoch": torch.ones(1)}), ("1 of", "epoch")),
        (lambda t: t.update({f"{Q}.lora_mid.weight": torch.ones(1, 1)}), ("CP form", "mid")),
        (lambda t: t.update({f"{Q}.lora_mid.weight": torch.ones(1, 1, 9, 9)}), ("CP form", "mid")),
        (lambda t: t.update({"unet." + Q[10:] + ".lora_A.weight": torch.ones(1, 32)}), ("there twice",)),
    ],
)
def test_damaged_files(model, good, tmp_path, change, words):
    change(good)
    refused(model, files.save(good, tmp_path / "x.safetensors"), *words)


def test_another_family(tmp_path, model):
    """SD2's widths differ where SD1.5's fit; SDXL's names are others, too."""
    wide = make_model(text_width=1024)
    pairs = files.random_pairs(wide, files.ATTENTION)
    path = files.save(files.kohya(pairs), tmp_path / "sd2.safetensors")
    total, shared = len(pairs), sum(p.down.shape[1] == 1024 for p in pairs.values())
    refused(model, path, f"{shared} of {total} layers have another shape", "attn2_to_k", "made for SD 2.x")
    sdxl = {}
    for name in ("lora_te2_text_model_encoder_layers_0_mlp_fc1", "lora_unet_input_blocks_4_1_proj_in"):
        sdxl |= {f"{name}.lora_down.weight": torch.ones(4, 8), f"{name}.lora_up.weight": torch.ones(8, 4)}
    path = files.save(sdxl, tmp_path / "sdxl.safetensors")
    refused(model, path, "2 of 2 layers have no place in it", "lora_unet_input_blocks_4_1_proj_in")


def test_text_layers_for_another_text_encoder(model, good, tmp_path):
    down = "lora_te_text_model_encoder_layers_11_self_attn_q_proj"
    good[f"{down}.lora_down.weight"], good[f"{down}.lora_up.weight"] = torch.ones(2, 32), torch.ones(32, 2)
    refused(model, files.save(good, tmp_path / "x.safetensors"), "1 of 137 layers have no place", down)


def test_motion_lora_for_the_mid_block_alone(tmp_path, model):
    v2 = make_model(use_motion_mid_block=True)
    pairs = {k: p for k, p in files.random_pairs(v2, files.MOTION).items() if "mid_block" in k}
    refused(model, files.save(files.animatediff(pairs), tmp_path / "x.safetensors"), "no layers for it")


def test_cloneofsimo_of_another_model(model, tmp_path):
    shapes = {"down": (2, 8), "up": (8, 2)}
    tensors = {f"unet:{i}:{half}": torch.ones(shape) for i in range(10) for half, shape in shapes.items()}
    refused(model, files.save(tensors, tmp_path / "x.safetensors"), "10 layers for the unet", "SD1.x has 144")
    tensors.pop("unet:4:up")
    refused(model, files.save(tensors, tmp_path / "y.safetensors"), "layers of the unet are missing")
    for name, content in (("odd.pt", [torch.ones(2, 2)] * 3), ("words.pt", ["a", "b"]), ("none.pt", [])):
        torch.save(content, tmp_path / name)
        refused(model, tmp_path / name, "not of a LoRA's matrices")


class Canary:
    def __reduce__(self):
        return os.mkdir, ("canary",)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"state_dict": {"a": x}}])
def test_code_in_pickles_does_not_run(model, tmp_path, monkeypatch, wrap):
    monkeypatch.chdir(tmp_path)
    torch.save(wrap(Canary()), tmp_path / "x.pt")
    refused(model, tmp_path / "x.pt", "refused")
    assert not (tmp_path / "canary").exists()


def test_weights_of_something_else(model, tmp_path):
    for name, tensors, words in (
        (
            "base",
            {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(8, 4, 3, 3)},
            "is a Stable Diffusion",
        ),
        (
            "motion",
            {f"unet.{k}": v for k, v in model.unet.state_dict().items() if "motion" in k},
            "motion modules",
        ),
        ("words", {"emb_params": torch.ones(2, 32)}, "a textual inversion"),
    ):
        refused(model, files.save(tensors, tmp_path / f"{name}.safetensors"), words)


def test_no_weights_at_all(model, tmp_path):
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html>")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for name, words in (
        ("page.safetensors", "web page"),
        ("empty.safetensors", "no readable weight file"),
        ("folder", "has neither pytorch_lora_weights.safetensors"),
        ("missing.safetensors", ""),
    ):
        refused(model, tmp_path / name, words)


@pytest.mark.parametrize(
    "header",
    [
        "no json",
        json.dumps({"unet.lora_alpha": "4"}),
        json.dumps({"unet.lora_alpha": float("nan")}),
        json.dumps({"unet.lora_alpha": 4, "unet.alpha_pattern": [1]}),
        json.dumps({"unet.lora_alpha": 4, "unet.alpha_pattern": {"to_q": None}}),
        "[" * 100_000,
    ],
)
def test_a_header_that_lies(model, tmp_path, header):
    pairs = files.diffusers_peft(files.random_pairs(model, files.ATTENTION))
    path = files.save(pairs, tmp_path / "x.safetensors", lora_adapter_metadata=header)
    refused(model, path, "no JSON" if "alpha" not in header else "alpha")


def test_a_pattern_is_never_run_as_a_regular_expression(model, tmp_path):
    """peft would; this one would take it for ever."""
    pairs = files.diffusers_peft(files.random_pairs(model, files.ATTENTION))
    config = json.dumps({"unet.lora_alpha": 4, "unet.alpha_pattern": {"(.*.*.*.*.*.*)*x": 8}})
    file = read_lora(files.save(pairs, tmp_path / "x.safetensors", lora_adapter_metadata=config))
    assert {layer.alpha for layer in file.layers.values()} == {4.0}
