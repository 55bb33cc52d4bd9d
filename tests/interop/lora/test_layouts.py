"""Every layout people own -> our model: against diffusers' own loaders, or W + alpha / rank * up @ down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from live2diff.interop.lora import add_lora, bake_lora, fit, read_lora
from tests.interop.lora import files
from tests.interop.lora.models import make_model, make_pipeline, predict, weights

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers and peft warn of their own conversions

BOTH_ATTENTIONS = f"{files.ATTENTION}|{files.TEXT_ATTENTION}"


@pytest.fixture(scope="module")
def model():
    return make_model()


def fused(path, scale: float = 1.0, **changes):
    """A fresh model with the LoRA in its weights."""
    model = make_model(**changes)
    add_lora(model, path, scale)
    bake_lora(model)
    return model


def check(model, before: dict[str, torch.Tensor], pairs: files.Pairs, scale: float = 1.0) -> None:
    """Each weight is W + scale * delta where there is a pair, and to the bit W where there is none."""
    after = weights(model)
    assert after.keys() == before.keys()
    for key, value in after.items():
        pair = pairs.get(key.removesuffix(".weight")) if key.endswith(".weight") else None
        if pair is None:
            assert torch.equal(value, before[key]), key
        else:
            torch.testing.assert_close(
                value, before[key] + scale * pair.delta.view_as(value), rtol=0, atol=1e-6
            )


def check_against_diffusers(path: Path, scale: float = 1.0) -> None:
    """diffusers loads and fuses the same file into the same weights; the predictions agree, too."""
    model = make_model()
    plain = predict(model)
    pipeline = make_pipeline(model)
    pipeline.load_lora_weights(str(path), adapter_name="it")
    pipeline.fuse_lora(lora_scale=scale)
    pipeline.unload_lora_weights()
    model.unet.load_state_dict(pipeline.unet.state_dict(), strict=False)
    model.text.model.load_state_dict(pipeline.text_encoder.state_dict())
    baked = fused(path, scale)
    ours = weights(baked)
    for key, value in weights(model).items():
        torch.testing.assert_close(ours[key], value, rtol=0, atol=1e-6)
    expected = predict(model)
    assert (expected - plain).abs().max() > 1e-2  # the LoRA does something
    attached = make_model()
    add_lora(attached, path, scale)
    for one in (baked, attached):
        assert (predict(one) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_kohya(model, tmp_path, scale):
    pairs = files.random_pairs(model, BOTH_ATTENTIONS)
    path = files.save(files.kohya(pairs), tmp_path / "style.safetensors")
    check(fused(path, scale), weights(model), pairs, scale)


def test_kohya_against_diffusers(model, tmp_path):
    """One alpha for all: where they differ, diffusers 0.42 looks for those of attentions under other keys."""
    pairs = files.random_pairs(model, BOTH_ATTENTIONS, alphas=(3.0,))
    check_against_diffusers(files.save(files.kohya(pairs), tmp_path / "style.safetensors"), 0.6)


def test_kohya_names_as_they_are_in_public_files(model):
    """A few keys copied from real SD1.5 files, so that the test's own spelling is held to something."""
    ours = files.kohya(files.random_pairs(model, files.ALL))
    for key in (
        "lora_unet_down_blocks_0_attentions_0_proj_in.alpha",
        "lora_unet_down_blocks_1_attentions_1_transformer_blocks_0_attn2_to_out_0.lora_down.weight",
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj.lora_up.weight",
        "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_ff_net_2.lora_down.weight",
        "lora_unet_down_blocks_0_downsamplers_0_conv.lora_down.weight",
        "lora_unet_up_blocks_2_resnets_1_conv_shortcut.lora_down.weight",
        "lora_unet_mid_block_resnets_1_time_emb_proj.alpha",
        "lora_te_text_model_encoder_layers_1_self_attn_q_proj.lora_down.weight",
        "lora_te_text_model_encoder_layers_0_mlp_fc1.alpha",
    ):
        assert key in ours


def test_missing_alpha_means_the_rank(model, tmp_path):
    pairs = files.unscaled(files.random_pairs(model, BOTH_ATTENTIONS))
    path = files.save(files.kohya(pairs, alphas=False), tmp_path / "style.safetensors")
    check(fused(path), weights(model), pairs)


def test_convolutions_and_all_other_layers(model, tmp_path):
    pairs = files.random_pairs(model, files.ALL)
    assert sum(pair.down.ndim == 4 and pair.down.shape[-1] == 3 for pair in pairs.values()) > 40
    path = files.save(files.kohya(pairs), tmp_path / "locon.safetensors")
    check(fused(path), weights(model), pairs)


def test_convolutions_and_all_other_layers_against_diffusers(model, tmp_path):
    pairs = files.random_pairs(model, files.ALL, alphas=(2.0,))
    check_against_diffusers(files.save(files.kohya(pairs), tmp_path / "locon.safetensors"))


def test_lcm_lora(model, tmp_path):
    """The public file: 278 layers of the UNet at one rank and alpha, in kohya's layout and half precision."""
    pairs = files.random_pairs(model, files.LCM, ranks=(4,), alphas=(2.0,))
    assert len(pairs) == 16 * (8 + 2 + 2) + 22 * 3 + 14 + 3 + 3
    pairs = {k: files.Pair(p.down.half(), p.up.half(), p.alpha) for k, p in pairs.items()}
    path = files.save(files.kohya(pairs), tmp_path / "pytorch_lora_weights.safetensors")
    check_against_diffusers(path)
    exact = {k: files.Pair(p.down.float(), p.up.float(), p.alpha) for k, p in pairs.items()}
    check(fused(tmp_path), weights(model), exact)  # the folder as it is on the hub


@pytest.mark.parametrize("layout", [files.diffusers_old, files.diffusers_linear, files.diffusers_peft])
def test_diffusers(model, tmp_path, layout):
    pairs = files.unscaled(files.random_pairs(model, rf"down_blocks.*{BOTH_ATTENTIONS}"))
    path = files.save(layout(pairs), tmp_path / "style.safetensors")
    check(fused(path), weights(model), pairs)
    check_against_diffusers(path)


def test_diffusers_unet_alone_without_prefix(model, tmp_path):
    pairs = files.unscaled(files.random_pairs(model, files.ATTENTION))
    torch.save(files.diffusers_old(pairs, prefix=""), tmp_path / "pytorch_lora_weights.bin")
    check(fused(tmp_path / "pytorch_lora_weights.bin"), weights(model), pairs)


def test_alphas_in_the_header_of_diffusers_files(model, tmp_path):
    pairs = files.random_pairs(model, BOTH_ATTENTIONS)
    config = {}
    for part, prefix in (("unet.", "unet"), ("text.", "text_encoder")):
        own = {path.removeprefix(part): pair for path, pair in pairs.items() if path.startswith(part)}
        if prefix == "text_encoder":
            own = {files.text_name(f"text.{path}"): pair for path, pair in own.items()}
        config |= {
            f"{prefix}.r": 2,
            f"{prefix}.lora_alpha": 8,
            f"{prefix}.rank_pattern": {f"^{path}": pair.down.shape[0] for path, pair in own.items()},
            # diffusers writes some with "^", some without
            f"{prefix}.alpha_pattern": {
                f"{'^' * (i % 2)}{path}": pair.alpha for i, (path, pair) in enumerate(own.items())
            },
            f"{prefix}.target_modules": list(own),
        }
    tensors = files.diffusers_peft(pairs)
    path = files.save(tensors, tmp_path / "a.safetensors", lora_adapter_metadata=json.dumps(config))
    check(fused(path), weights(model), pairs)


def test_folder_saved_by_peft(model, tmp_path):
    pairs = files.random_pairs(model, files.ATTENTION, ranks=(4,))
    tensors = {
        f"base_model.model.{path.removeprefix('unet.')}.lora_{half}.weight": getattr(pair, name)
        for path, pair in pairs.items()
        for half, name in (("A", "down"), ("B", "up"))
    }
    files.save(tensors, tmp_path / "adapter_model.safetensors")
    for options, factor in (({}, 1.0), ({"use_rslora": True}, 2.0)):  # alpha / sqrt(4) is twice alpha / 4
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, **options}
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        scaled = {path: pair._replace(alpha=6.0 * factor) for path, pair in pairs.items()}
        check(fused(tmp_path), weights(model), scaled)


def test_cp_convolutions_of_lycoris(model, tmp_path):
    """1 x 1 down, 3 x 3 between ranks, 1 x 1 up: the product of three, written out."""
    pairs = files.random_pairs(model, r"conv1$", ranks=(4,), alphas=(4.0,))
    generator = torch.Generator().manual_seed(1)
    tensors = files.kohya(pairs)
    expected = {}
    for path, pair in pairs.items():
        name = "lora_unet_" + path.removeprefix("unet.").replace(".", "_")
        down, mid = pair.down[:, :, :1, :1], torch.randn(4, 4, 3, 3, generator=generator)
        tensors[f"{name}.lora_down.weight"], tensors[f"{name}.lora_mid.weight"] = down, mid
        up = pair.up[:, :, 0, 0]
        delta = torch.zeros_like(model.unet.get_submodule(path.removeprefix("unet.")).weight)
        for y in range(3):
            for x in range(3):
                delta[:, :, y, x] = up @ mid[:, :, y, x] @ down[:, :, 0, 0]
        expected[path] = delta
    path = files.save(tensors, tmp_path / "cp.safetensors")
    after, before = weights(fused(path)), weights(model)
    for name, delta in expected.items():
        torch.testing.assert_close(
            after[f"{name}.weight"], before[f"{name}.weight"] + delta, rtol=0, atol=1e-5
        )


def test_motion_lora_of_animatediff(model, tmp_path):
    """Its files have a mid-block module, which v1-shaped models lack; wrapped as the authors publish them."""
    v2 = make_model(use_motion_mid_block=True)
    pairs = files.unscaled(files.random_pairs(v2, files.MOTION))
    assert len(pairs) == 21 * 8
    torch.save({"state_dict": files.animatediff(pairs)}, tmp_path / "v2_lora_ZoomIn.ckpt")
    check(fused(tmp_path / "v2_lora_ZoomIn.ckpt", 0.8, use_motion_mid_block=True), weights(v2), pairs, 0.8)
    without = {path: pair for path, pair in pairs.items() if "mid_block" not in path}
    check(fused(tmp_path / "v2_lora_ZoomIn.ckpt", 0.8), weights(model), without, 0.8)


def test_motion_lora_in_diffusers_layout_against_diffusers(model, tmp_path):
    from diffusers import UNetMotionModel

    pairs = files.unscaled(files.random_pairs(model, files.MOTION))
    path = files.save(files.diffusers_peft(pairs), tmp_path / "zoom.safetensors")
    stock = UNetMotionModel.from_config({**model.unet.config, "_class_name": "UNetMotionModel"})
    own = {key: value for key, value in model.unet.state_dict().items() if "pos_embed" not in key}
    stock.load_state_dict(own, strict=False)
    stock.load_lora_adapter(files.diffusers_peft(pairs), prefix="unet", adapter_name="zoom")
    stock.fuse_lora(lora_scale=0.7)
    stock.unload_lora()
    ours = weights(fused(path, 0.7))
    theirs = stock.state_dict()
    for key in own:
        if not key.startswith("depth_branch"):
            torch.testing.assert_close(ours[f"unet.{key}"], theirs[key], rtol=0, atol=1e-6)


def test_motion_lora_of_animatelcm(model, tmp_path):
    """A later tool's spelling: the processor stands before the last name, and the feed-forward takes part."""
    block = "down_blocks.0.motion_modules.0"
    inside = f"{block}.temporal_transformer.transformer_blocks.0"
    ours = f"unet.{block}.transformer_blocks.0"
    names = {
        f"{inside}.attention_blocks.1.to_out.processor.0_lora": f"{ours}.attn2.to_out.0",
        f"{inside}.ff.net.0.processor.proj_lora": f"{ours}.ff.net.0.proj",
    }
    pairs = files.unscaled(files.random_pairs(model, r"motion_modules"))
    tensors = {}
    for name, path in names.items():
        tensors[f"{name}.down.weight"], tensors[f"{name}.up.weight"] = pairs[path].down, pairs[path].up
    path = files.save(tensors, tmp_path / "lcm.safetensors")
    check(fused(path), weights(model), {path: pairs[path] for path in names.values()})


# -- cloneofsimo: by number --------------------------------------------------------------------------------

BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0"
NUMBERS = {  # by hand, from diffusers 0.10's order of creation: first attention, GEGLU, second attention
    0: f"{BLOCK}.attn1.to_q",
    3: f"{BLOCK}.attn1.to_out.0",
    4: f"{BLOCK}.ff.net.0.proj",
    5: f"{BLOCK}.attn2.to_q",
    6: f"{BLOCK}.attn2.to_k",
    8: f"{BLOCK}.attn2.to_out.0",
    9: "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_q",
    54: "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    134: "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0",
    135: "mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    143: "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
}


def numbered(model) -> list[tuple[str, files.Pair]]:
    """Pairs of the UNet in the old order, found by walking blocks, not by the reader's own list."""
    pairs = files.unscaled(files.random_pairs(model, rf"{files.ATTENTION}|attentions.*ff\.net\.0\.proj$"))

    def order(path: str):
        block, inside = path.removeprefix("unet.").split(".transformer_blocks.0.")
        place = ("down", "up", "mid").index(block.split("_")[0])
        return place, block, ("attn1", "ff", "attn2").index(inside.split(".")[0])

    return [(path, pairs[path]) for path in sorted(pairs, key=order)]


def test_cloneofsimo(model, tmp_path):
    unet = numbered(model)
    text = list(files.unscaled(files.random_pairs(model, files.TEXT_ATTENTION)).items())
    assert [path.rsplit(".", 1)[1] for path, _ in text[:4]] == ["k_proj", "v_proj", "q_proj", "out_proj"]
    for number, path in NUMBERS.items():
        assert unet[number][0] == f"unet.{path}"
    tensors = {}
    for part, pairs in (("unet", unet), ("text_encoder", text)):
        for number, (_, pair) in enumerate(pairs):
            tensors[f"{part}:{number}:down"], tensors[f"{part}:{number}:up"] = pair.down, pair.up
    tensors["<s1>"] = torch.randn(32)
    path = files.save(tensors, tmp_path / "disney.safetensors")
    assert set(read_lora(path).embeddings) == {"<s1>"}
    check(fused(path), weights(model), dict([*unet, *text]))
    lists = {"lora.pt": unet, "lora.text_encoder.pt": text}
    for name, pairs in lists.items():
        torch.save([half for _, pair in pairs for half in (pair.up, pair.down)], tmp_path / name)
        check(fused(tmp_path / name), weights(model), dict(pairs))


def test_the_real_disney_file(shared):
    """All of its layers have their place in SD1.5 at full width; the widths are told apart by shape alone."""
    from types import SimpleNamespace

    from transformers import CLIPTextConfig, CLIPTextModel

    from live2diff.model.unet import CausalUNet

    file = read_lora(shared / "data" / "lora" / "sd15_lora_disney_rank1.safetensors")
    size = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    with torch.device("meta"):
        text = SimpleNamespace(model=CLIPTextModel(CLIPTextConfig(**size)))
        model = SimpleNamespace(unet=CausalUNet(), text=text)
    layers = fit(file, model)
    assert len(layers) == 144 + 48
    assert all(layer.rank == 1 == layer.alpha for layer in layers.values())
    for number, path in NUMBERS.items():
        assert layers[f"unet.{path}"].key == f"unet:{number}"
    assert set(file.embeddings) == {"<s1>", "<s2>"}
