"""LoRA out: diffusers reads what is written, and every layout that can hold it gives the same bits back."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file

from live2diff.errors import CheckpointError, UsageError
from live2diff.interop.lora import add_lora, bake_lora, extract_lora, fit, read_lora, save_lora
from live2diff.interop.lora.layer import Layer, Layers
from tests.interop.lora import files
from tests.interop.lora.models import make_model, make_pipeline, predict, weights

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers and peft warn of their own conversions

SPATIAL = f"{files.ATTENTION}|{files.TEXT_ATTENTION}|conv1$"
ANY = f"{SPATIAL}|{files.MOTION}"


def layers_of(model, pattern: str, **options) -> Layers:
    return {path: Layer(*pair) for path, pair in files.random_pairs(model, pattern, **options).items()}


def same(one: Layers, other: Layers) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(layer.down, other[path].down)
        and torch.equal(layer.up, other[path].up)
        and layer.down.dtype == other[path].down.dtype
        and layer.alpha == other[path].alpha
        for path, layer in one.items()
    )


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_round_trips_are_bit_identical(tmp_path, layout, dtype):
    model = make_model()
    layers = layers_of(model, ANY, alphas=(0.1, 1.0, 8.0))  # 0.1 has no float32
    first, second = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert save_lora(layers, first, layout, dtype) == []
    read = fit(read_lora(first), model)
    wanted = {path: layer.down.to(dtype) for path, layer in layers.items()}
    assert all(
        torch.equal(read[path].down, down) and read[path].alpha == layers[path].alpha
        for path, down in wanted.items()
    )
    save_lora(read, second, layout)
    equal = first.read_bytes() == second.read_bytes()
    assert equal
    other = {"diffusers": "kohya", "kohya": "diffusers"}[layout]
    save_lora(read, second, other)
    assert same(fit(read_lora(second), model), read)


def test_what_is_attached_comes_out_as_it_went_in(tmp_path):
    model = make_model()
    pairs = files.random_pairs(model, ANY)
    source = files.save(files.kohya(pairs), tmp_path / "in.safetensors")
    name = add_lora(model, source, 0.3)  # the strength it is used at is not the file's
    add_lora(model, source, 1.0, name="another")
    save_lora(extract_lora(model, name), tmp_path / "out.safetensors", "kohya")
    before, after = load_file(source), load_file(tmp_path / "out.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    with pytest.raises(UsageError, match="there are in, another"):
        extract_lora(model, "out")


@pytest.mark.parametrize(("layout", "alphas"), [("diffusers", (0.5, 1.0, 4.0)), ("kohya", (2.0,))])
def test_diffusers_reads_what_is_written(tmp_path, layout, alphas):
    """(With several alphas diffusers misreads kohya's layout, see test_layouts.)"""
    model = make_model()
    path = tmp_path / "style.safetensors"
    save_lora(layers_of(model, SPATIAL, alphas=alphas), path, layout)
    pipeline = make_pipeline(model)
    pipeline.load_lora_weights(str(path), adapter_name="it")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    add_lora(model, path)
    bake_lora(model)
    ours = weights(model)
    for part, theirs in (("unet", pipeline.unet), ("text", pipeline.text_encoder)):
        for key, value in theirs.state_dict().items():
            torch.testing.assert_close(ours[f"{part}.{key}"], value, rtol=0, atol=1e-6)


def test_motion_lora_trained_through_peft(tmp_path):
    """What training adds with peft is taken out by its name, and every tool's layout gives it back."""
    from diffusers import UNetMotionModel

    model = make_model()
    config = LoraConfig(r=4, lora_alpha=6, target_modules=r".*motion_modules.*to_(q|k|v|out\.0)")
    inject_adapter_in_model(config, model.unet, "motion")
    trained = [p for p in model.unet.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=10.0)
    sample, text = torch.randn(1, 4, 3, 8, 8), model.text(["a cat"])
    for _ in range(2):
        optimizer.zero_grad()
        (model.unet(sample, 399, text, sample) - sample).square().mean().backward()
        optimizer.step()
    layers = extract_lora(model, "motion")
    assert len(layers) == 20 * 8
    assert all(layer.up.abs().max() > 0 and layer.alpha == 6 for layer in layers.values())
    expected = predict(model)
    assert (expected - predict(make_model())).abs().max() > 1e-4
    for layout in ("diffusers", "kohya", "animatediff"):
        losses = save_lora(layers, tmp_path / "zoom.safetensors", layout)
        assert len(losses) == (layout == "animatediff")
        again = make_model()
        add_lora(again, tmp_path / "zoom.safetensors")
        assert (predict(again) - expected).abs().max() < 1e-5, layout
        if layout == "animatediff":
            keys = load_file(tmp_path / "zoom.safetensors")
            attention = "temporal_transformer.transformer_blocks.0.attention_blocks.1"
            assert f"up_blocks.3.motion_modules.2.{attention}.processor.to_out_lora.down.weight" in keys
        if layout == "diffusers":
            stock = UNetMotionModel.from_config({**model.unet.config, "_class_name": "UNetMotionModel"})
            stock.load_lora_adapter(
                str(tmp_path), weight_name="zoom.safetensors", prefix="unet", adapter_name="zoom"
            )
            theirs = dict(stock.named_modules())
            for path, layer in layers.items():
                site = theirs[path.removeprefix("unet.")]
                assert torch.equal(site.lora_A["zoom"].weight, layer.down)
                assert torch.equal(site.lora_B["zoom"].weight, layer.up)
                assert site.scaling["zoom"] == 6 / 4


def test_animatediff_layout_keeps_bits_where_alpha_is_the_rank(tmp_path):
    model = make_model()
    layers = layers_of(model, files.MOTION, ranks=(2,), alphas=(2.0,))
    assert save_lora(layers, tmp_path / "zoom.safetensors", "animatediff") == []
    assert same(fit(read_lora(tmp_path / "zoom.safetensors"), model), layers)


def test_what_cannot_be_written_is_refused(tmp_path):
    model = make_model()
    layers = layers_of(model, SPATIAL)
    for arguments, words in (
        (("x.safetensors", "lycoris"), "expected one of diffusers, kohya, animatediff"),
        (("x.safetensors", "animatediff"), "temporal attentions alone"),
        (("x.pt", "kohya"), "name it so"),
    ):
        with pytest.raises(UsageError, match=words):
            save_lora(layers, tmp_path / arguments[0], arguments[1])
    inject_adapter_in_model(LoraConfig(use_dora=True, target_modules=["to_q"]), model.unet, "dora")
    with pytest.raises(CheckpointError, match="more than a plain LoRA"):
        extract_lora(model, "dora")
    assert not list(tmp_path.iterdir())
