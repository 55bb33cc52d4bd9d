"""Adapters on a model: fused equals beside, unfused is the very same, and the stream follows every change."""

from __future__ import annotations

import pytest
import torch

from live2diff.errors import UsageError
from live2diff.interop.lora import (
    add_lora,
    bake_lora,
    fuse_lora,
    lora_names,
    remove_lora,
    set_lora_scales,
    unfuse_lora,
)
from tests.interop.lora import files
from tests.interop.lora.models import make_model, predict, weights
from tests.model.tiny import make_inputs, stream, whole

EVERY_KIND = r"^unet\.(conv_|time_emb|down_blocks\.1|up_blocks\.3|mid_block)|^text\."


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    model = make_model()
    files.save(files.kohya(files.random_pairs(model, EVERY_KIND)), folder / "style.safetensors")
    pairs = files.random_pairs(model, files.ATTENTION, ranks=(5,), alphas=(7.0,))
    files.save(files.kohya(pairs), folder / "other.safetensors")
    motion = files.unscaled(files.random_pairs(model, files.MOTION))
    files.save(files.animatediff(motion), folder / "zoom.safetensors")
    return folder


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def test_fused_equals_beside_and_unfusing_gives_the_very_bits_back(lora):
    model = make_model()
    before, plain = weights(model), predict(model)
    addresses = [parameter.data_ptr() for parameter in model.unet.parameters()]
    add_lora(model, lora / "style.safetensors", 0.7)
    add_lora(model, lora / "other.safetensors", -0.3)
    beside = predict(model)
    assert difference(beside, plain) > 1e-2
    for _ in range(3):
        fuse_lora(model)
        assert difference(predict(model), beside) < 1e-5
        unfuse_lora(model)
        assert torch.equal(predict(model), beside)
    remove_lora(model)
    assert same(weights(model), before)
    assert torch.equal(predict(model), plain)
    assert [parameter.data_ptr() for parameter in model.unet.parameters()] == addresses


def test_half_precision_comes_back_bit_for_bit(lora):
    model = make_model()
    model.to("cpu", torch.bfloat16)
    before = weights(model)
    add_lora(model, lora / "other.safetensors")
    fuse_lora(model)
    assert not same(weights(model), before)
    unfuse_lora(model)
    remove_lora(model)
    assert same(weights(model), before)


def test_scales_are_live(lora):
    model = make_model()
    plain = predict(model)
    name = add_lora(model, lora / "other.safetensors", 0.0)
    assert difference(predict(model), plain) < 1e-6
    set_lora_scales(model, {name: 0.5})
    half = predict(model)
    direct = make_model()
    add_lora(direct, lora / "other.safetensors", 0.5)
    assert torch.equal(predict(direct), half)
    set_lora_scales(model, {name: 0})
    assert difference(predict(model), plain) < 1e-6


def test_several_with_weights_and_one_taken_away(lora):
    model = make_model()
    assert add_lora(model, lora / "style.safetensors", 0.7) == "style"
    only_style = predict(model)
    assert add_lora(model, lora / "other.safetensors", 0.4, name="mine") == "mine"
    assert add_lora(model, lora / "other.safetensors", 0.4) == "other"
    assert add_lora(model, lora / "other.safetensors", -0.8) == "other_1"
    assert lora_names(model) == ["style", "mine", "other", "other_1"]
    assert difference(predict(model), only_style) < 1e-5  # 0.4 + 0.4 - 0.8
    set_lora_scales(model, {"other_1": 0.0})
    remove_lora(model, "other_1")
    remove_lora(model, "mine")
    both = predict(model)
    fresh = make_model()
    for file, scale in (("style", 0.7), ("other", 0.4)):
        add_lora(fresh, lora / f"{file}.safetensors", scale)
        bake_lora(fresh)
    assert difference(predict(fresh), both) < 1e-5
    remove_lora(model, "other")
    assert torch.equal(predict(model), only_style)
    assert lora_names(model) == ["style"]


def test_stream_equals_masked_forward_with_adapters_on_motion_modules(lora):
    """Projected positional encodings come from the weights of the moment, whatever was done to them."""
    model = make_model()
    model.unet.set_window(4, 2)
    inputs = make_inputs(2, 7)  # beyond the window, where indices shift
    seen = []

    def check():
        streamed, masked = stream(model.unet, *inputs), whole(model.unet, *inputs)
        assert not streamed.isnan().any()
        assert difference(streamed, masked) < 1e-5
        seen.append(streamed)

    check()
    name = add_lora(model, lora / "zoom.safetensors", 0.8)
    check()
    fuse_lora(model)
    check()
    unfuse_lora(model)
    check()
    set_lora_scales(model, {name: 0.3})
    check()
    remove_lora(model)
    check()
    plain, beside, fused, unfused, weaker, removed = seen
    assert difference(fused, beside) < 1e-5
    assert torch.equal(unfused, beside)
    assert torch.equal(removed, plain)
    assert difference(beside, plain) > 1e-2 < difference(weaker, beside)


def test_a_running_stream_follows_a_change(lora):
    """A change between two steps counts from the next one on, as if the memory had been handed to another
    model with those weights."""
    model, changed = make_model(), make_model()
    add_lora(changed, lora / "zoom.safetensors", 1.0)
    bake_lora(changed)
    samples, depths, timesteps, text = make_inputs(1, 12)
    memory = model.unet.new_memory(1, 8, 8)
    model.unet.warm_up(memory, 0, samples[:, :, :8], timesteps[0], text, depths[:, :, :8])
    other = changed.unet.new_memory(1, 8, 8)
    other.load_state_dict(memory.state_dict())
    add_lora(model, lora / "zoom.safetensors", 1.0)
    fuse_lora(model)
    for frame in range(8, 12):
        step = (samples[:, :, frame], timesteps, text, depths[:, :, frame])
        assert difference(model.unet.step(memory, *step), changed.unet.step(other, *step)) < 1e-5


def test_what_is_trained_stays_trained(lora):
    """Loading a LoRA neither freezes nor thaws anything, and its own matrices are not trained."""
    model = make_model()
    model.unet.requires_grad_(False)
    model.unet.up_blocks[0].motion_modules.requires_grad_(True)
    trained = {name for name, parameter in model.unet.named_parameters() if parameter.requires_grad}
    add_lora(model, lora / "zoom.safetensors")
    add_lora(model, lora / "other.safetensors")
    now = {
        name.replace(".base_layer", "")
        for name, parameter in model.unet.named_parameters()
        if parameter.requires_grad
    }
    assert now == trained
    remove_lora(model, "other")
    bake_lora(model)
    assert {name for name, parameter in model.unet.named_parameters() if parameter.requires_grad} == trained


def test_mistakes_are_named_and_change_nothing(lora):
    model = make_model()
    for call, words in (
        (lambda: fuse_lora(model), "no LoRA to fuse"),
        (lambda: unfuse_lora(model), "not fused"),
        (lambda: remove_lora(model, "x"), "no LoRA is called 'x'; there are none"),
        (lambda: add_lora(model, lora / "other.safetensors", name="a.b"), "cannot be the name"),
        (lambda: add_lora(model, lora / "other.safetensors", name="update"), "cannot be the name"),
    ):
        with pytest.raises(UsageError, match=words):
            call()
    assert not lora_names(model)
    add_lora(model, lora / "other.safetensors")
    for call, words in (
        (lambda: add_lora(model, lora / "other.safetensors", name="other"), "called 'other' already"),
        (lambda: set_lora_scales(model, {"others": 1}), "there are other"),
    ):
        with pytest.raises(UsageError, match=words):
            call()
    fuse_lora(model)
    fused = weights(model)
    for call in (
        lambda: add_lora(model, lora / "style.safetensors"),
        lambda: set_lora_scales(model, {"other": 1}),
        lambda: remove_lora(model),
        lambda: fuse_lora(model),
        lambda: bake_lora(model),
    ):
        with pytest.raises(UsageError, match="unfuse them first"):
            call()
    assert same(weights(model), fused)


def test_files_with_odd_names_get_usable_ones(lora, tmp_path):
    model = make_model()
    content = (lora / "zoom.safetensors").read_bytes()
    for stem, name in (("v2.0 (final)", "v2_0__final_"), ("keys", "lora_keys"), ("-x", "lora_-x")):
        (tmp_path / f"{stem}.safetensors").write_bytes(content)
        assert add_lora(model, tmp_path / f"{stem}.safetensors") == name
