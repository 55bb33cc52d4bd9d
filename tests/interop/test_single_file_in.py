"""Stable Diffusion 1.5 as one file or as a folder, held against diffusers' and transformers' own loaders."""

from __future__ import annotations

import shutil

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel, UNetMotionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTextModel

from live2diff.errors import CheckpointError
from live2diff.interop.sd15 import load_unet
from live2diff.interop.sizes import CONFIGS, sd15_config
from live2diff.model.text import TextEncoder, character_tokenizer
from live2diff.model.vae import load_vae
from live2diff.settings import TextSettings
from tests.interop import public
from tests.interop.public import TEXT, UNET, VAE, new_text, new_unet, new_vae, same, single_file

SETTINGS = TextSettings()


@pytest.fixture(scope="module")
def parts():
    return new_unet(seed=1), new_vae(seed=2), new_text(seed=3)


@pytest.fixture(scope="module")
def folder(parts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sd15")
    public.save_folder(folder, *parts)
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A folder with a vocabulary only."""
    folder = tmp_path_factory.mktemp("words")
    character_tokenizer().save_pretrained(folder)
    return folder


def write(state, path):
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save({"state_dict": state, "global_step": 840000}, path)
    return path


def spatial(unet) -> dict:
    return {
        key: value
        for key, value in unet.state_dict().items()
        if "motion_modules" not in key and not key.startswith("depth_branch.")
    }


# -- the layout itself ----------------------------------------------------------------------------------


def test_the_files_in_these_tests_have_the_published_names_and_shapes():
    """At full size, without memory: 686 + 248 + 197 tensors, as in v1-5-pruned-emaonly.safetensors."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(sd15_config("unet"))
        vae = AutoencoderKL.from_config(sd15_config("vae"))
        text = new_text(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, vocab_size=49408)
        state = single_file(unet, vae, text, spare=False)
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    for prefix, count in (
        ("model.diffusion_model.", 686),
        ("first_stage_model.", 248),
        ("cond_stage_model.", 197),
    ):
        assert sum(key.startswith(prefix) for key in shapes) == count
    for key, shape in {
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "model.diffusion_model.input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
        "model.diffusion_model.middle_block.1.proj_in.weight": (1280, 1280, 1, 1),
        "model.diffusion_model.output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.output_blocks.8.2.conv.weight": (640, 640, 3, 3),
        "model.diffusion_model.output_blocks.11.0.skip_connection.weight": (320, 640, 1, 1),
        "model.diffusion_model.output_blocks.11.1.proj_out.bias": (320,),
        "first_stage_model.encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        "first_stage_model.decoder.mid.attn_1.proj_out.weight": (512, 512, 1, 1),
        "first_stage_model.quant_conv.weight": (8, 8, 1, 1),
        "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight": (49408, 768),
        "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc1.weight": (3072, 768),
    }.items():
        assert shapes.get(key) == shape, key


def test_the_package_holds_sd15s_sizes():
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(sd15_config("unet"))
        vae = AutoencoderKL.from_config(sd15_config("vae"))
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    assert vae.config.scaling_factor == 0.18215
    assert sum(file.stat().st_size for file in CONFIGS.rglob("*.json")) < 10_000


# -- UNet -----------------------------------------------------------------------------------------------


def diffusers_unet(path, tmp_path) -> UNetMotionModel:
    """What diffusers makes of a single file."""
    new_unet().save_config(tmp_path / "oracle/unet")
    base = UNet2DConditionModel.from_single_file(str(path), config=str(tmp_path / "oracle"), subfolder="unet")
    return UNetMotionModel.from_unet2d(base)


@pytest.mark.parametrize("name", ["base.safetensors", "base.ckpt"])
def test_unet_of_a_whole_model(parts, tmp_path, name):
    path = write(single_file(*parts), tmp_path / name)
    ours = load_unet(path, UNET)
    theirs = {
        k: v for k, v in diffusers_unet(path, tmp_path).state_dict().items() if "motion_modules" not in k
    }
    same(spatial(ours), theirs)
    assert not any(tensor.is_meta for tensor in ours.state_dict().values())


def test_one_forward_is_equal(parts, tmp_path):
    """One frame with silent motion modules: the image model itself."""
    ours = load_unet(write(single_file(*parts), tmp_path / "base.safetensors"), UNET).eval()
    for name, parameter in ours.named_parameters():
        if ".motion_modules." in name and ".proj_out." in name:
            nn.init.zeros_(parameter)
    sample, text = torch.randn(2, 4, 16, 16), torch.randn(2, 7, 32)
    with torch.no_grad():
        expected = parts[0](sample, 399, text).sample
        got = ours(sample.unsqueeze(2), 399, text, mask="bidirectional")[:, :, 0]
    assert expected.std() > 0.1
    assert (got - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", ""])
def test_unet_alone(parts, tmp_path, prefix):
    path = write(public.ldm_unet(parts[0].state_dict(), prefix), tmp_path / "unet.safetensors")
    same(spatial(load_unet(path, UNET)), parts[0].state_dict())


def test_unet_alone_by_diffusers_names(parts, folder):
    path = folder / "unet/diffusion_pytorch_model.safetensors"
    same(spatial(load_unet(path, UNET)), parts[0].state_dict())


def test_half_precision_dreambooth(parts, tmp_path):
    state = {k: v.half() if v.is_floating_point() else v for k, v in single_file(*parts).items()}
    ours = load_unet(write(state, tmp_path / "toonyou.safetensors"), UNET)
    same(spatial(ours), {key: value.half().float() for key, value in parts[0].state_dict().items()})


@pytest.mark.parametrize("where", ["model", "unet"])
def test_unet_of_a_folder(parts, folder, where):
    ours = load_unet(folder if where == "model" else folder / "unet")
    same(spatial(ours), parts[0].state_dict())


def test_folder_in_two_files(parts, folder, tmp_path):
    """Large models are split; an index says what is where."""
    parts[0].save_pretrained(tmp_path / "unet", max_shard_size="200KB")
    assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 1
    same(spatial(load_unet(tmp_path)), parts[0].state_dict())


def test_a_fresh_motion_module_is_ordinary(parts, folder):
    """What no file gives has random values of a normal size, not memory's leftovers."""
    ours = load_unet(folder)
    for name, parameter in ours.named_parameters():
        assert parameter.isfinite().all() and parameter.abs().max() < 10, name
    weight = ours.down_blocks[0].motion_modules[0].transformer_blocks[0].attn1.to_q.weight
    assert weight.std().item() == pytest.approx((3 * 32) ** -0.5, rel=0.2)
    first, second = (load_unet(folder) for _ in range(2))
    assert not torch.equal(first.state_dict()[KEY], second.state_dict()[KEY])


KEY = "down_blocks.0.motion_modules.0.proj_in.weight"


# -- VAE ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["base.safetensors", "base.ckpt"])
def test_vae_of_a_whole_model(parts, tmp_path, name):
    path = write(single_file(*parts), tmp_path / name)
    parts[1].save_config(tmp_path / "oracle/vae")
    theirs = AutoencoderKL.from_single_file(str(path), config=str(tmp_path / "oracle"), subfolder="vae")
    ours = load_vae(path, VAE)
    same(ours.state_dict(), theirs.state_dict())
    assert ours.config.scaling_factor == 0.18215
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        expected, got = theirs.encode(images).latent_dist.mean, ours.encode(images).latent_dist.mean
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(
            ours.decode(got).sample, theirs.decode(expected).sample, atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
def test_vae_alone(parts, tmp_path, prefix):
    """As `vae-ft-mse-840000-ema-pruned`, whose training left a discriminator in the .ckpt."""
    state = public.ldm_vae(parts[1].state_dict(), prefix)
    if not prefix:
        state |= {"loss.logvar": torch.zeros(1), "loss.discriminator.main.0.weight": torch.zeros(3)}
        state |= {"model_ema.decay": torch.tensor(0.9)}
    same(load_vae(write(state, tmp_path / "vae.ckpt"), VAE).state_dict(), parts[1].state_dict())


@pytest.mark.parametrize("where", ["model", "vae"])
def test_vae_of_a_folder(parts, folder, where):
    same(load_vae(folder if where == "model" else folder / "vae").state_dict(), parts[1].state_dict())


def test_old_names_in_a_vae_folder(parts, folder, tmp_path):
    """SD1.5's own folder and sd-vae-ft-mse call the attention's layers query, key, value and proj_attn."""
    shutil.copytree(folder / "vae", tmp_path / "vae")
    (file,) = (tmp_path / "vae").glob("*.safetensors")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = {}
    for key, value in load_file(file).items():
        for new, name in old.items():
            key = key.replace(f".attentions.0.{new}.", f".attentions.0.{name}.")
        state[key] = value.clone()
    assert any(".query." in key for key in state)
    save_file(state, file, {"format": "pt"})
    theirs = AutoencoderKL.from_pretrained(tmp_path / "vae")
    same(load_vae(tmp_path).state_dict(), theirs.state_dict())
    same(load_vae(tmp_path).state_dict(), parts[1].state_dict())


# -- TAESD ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny_vae():
    vae = AutoencoderTiny()
    for i, parameter in enumerate(vae.parameters()):
        with torch.no_grad():
            generator = torch.Generator().manual_seed(i)
            scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.05
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return vae.eval()


def test_taesd_folder(tiny_vae, tmp_path):
    tiny_vae.save_pretrained(tmp_path)
    ours = load_vae(tmp_path)
    same(ours.state_dict(), tiny_vae.state_dict())
    assert ours.config.scaling_factor == 1.0


def test_taesd_file_by_diffusers_names(tiny_vae, tmp_path):
    tiny_vae.save_pretrained(tmp_path)
    ours = load_vae(tmp_path / "diffusion_pytorch_model.safetensors")
    same(ours.state_dict(), tiny_vae.state_dict())


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("given", ["folder", "encoder", "decoder"])
def test_taesd_as_its_author_publishes_it(tiny_vae, tmp_path, suffix, given):
    for half, state in zip(("encoder", "decoder"), public.taesd_halves(tiny_vae), strict=True):
        (save_file if suffix == ".safetensors" else torch.save)(state, tmp_path / f"taesd_{half}{suffix}")
    ours = load_vae(tmp_path if given == "folder" else tmp_path / f"taesd_{given}{suffix}")
    same(ours.state_dict(), tiny_vae.state_dict())


def test_taesd_computes_what_its_author_wrote(tiny_vae, tmp_path):
    """The original network, put together by hand: images in [0, 1], a clamp before the decoder."""
    encoder, decoder = public.taesd_halves(tiny_vae)
    encoder_net = original_taesd("encoder")
    decoder_net = original_taesd("decoder")
    encoder_net.load_state_dict(encoder)
    decoder_net.load_state_dict(decoder)
    save_file(encoder, tmp_path / "taesd_encoder.safetensors")
    save_file(decoder, tmp_path / "taesd_decoder.safetensors")
    ours = load_vae(tmp_path)
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        expected = encoder_net(images)
        latents = ours.encode(images * 2 - 1).latents
        torch.testing.assert_close(latents, expected, atol=1e-5, rtol=1e-5)
        pictures = ours.decode(3 * latents).sample
        torch.testing.assert_close(pictures, decoder_net(3 * latents) * 2 - 1, atol=1e-5, rtol=1e-5)


def original_taesd(half: str) -> nn.Sequential:
    def conv(before, after, **options):
        return nn.Conv2d(before, after, 3, padding=1, **options)

    def blocks(count):
        return [Block() for _ in range(count)]

    def down():
        return conv(64, 64, stride=2, bias=False)

    def up():
        return [nn.Upsample(scale_factor=2), conv(64, 64, bias=False)]

    if half == "encoder":
        layers = [
            conv(3, 64),
            Block(),
            down(),
            *blocks(3),
            down(),
            *blocks(3),
            down(),
            *blocks(3),
            conv(64, 4),
        ]
    else:
        layers = [Clamp(), conv(4, 64), nn.ReLU(), *blocks(3), *up(), *blocks(3), *up(), *blocks(3), *up()]
        layers += [Block(), conv(64, 3)]
    return nn.Sequential(*layers).eval()


class Clamp(nn.Module):
    def forward(self, x):
        return torch.tanh(x / 3) * 3


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        convs = [nn.Conv2d(64, 64, 3, padding=1) for _ in range(3)]
        self.conv = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])

    def forward(self, x):
        return torch.relu(self.conv(x) + x)


def test_half_a_taesd(tiny_vae, tmp_path):
    save_file(public.taesd_halves(tiny_vae)[0], tmp_path / "taesd_encoder.safetensors")
    with pytest.raises(CheckpointError, match="taesd_decoder.safetensors: no such file; TAESD is two files"):
        load_vae(tmp_path / "taesd_encoder.safetensors")


# -- text -----------------------------------------------------------------------------------------------

PREFIXES = {
    "whole": "cond_stage_model.transformer.text_model.",
    "merge": "cond_stage_model.transformer.",  # some merges lost a part of the name
    "diffusers": "text_encoder.text_model.",
    "old": "text_model.",
    "new": "",
}


@pytest.mark.parametrize("layout", PREFIXES)
def test_text_encoder_by_any_of_its_names(parts, words, tmp_path, layout):
    state = public.ldm_text(parts[2].state_dict(), PREFIXES[layout])
    ours = TextEncoder.load(write(state, tmp_path / "text.safetensors"), SETTINGS, words, TEXT)
    same(ours.model.state_dict(), parts[2].state_dict())


def test_text_encoder_of_a_whole_clip(parts, words, tmp_path):
    """openai/clip-vit-large-patch14 holds the image half, too."""
    state = public.ldm_text(parts[2].state_dict(), "text_model.")
    state |= {"vision_model.embeddings.class_embedding": torch.zeros(3), "logit_scale": torch.tensor(4.6)}
    state |= {"visual_projection.weight": torch.zeros(2, 2), "text_projection.weight": torch.zeros(2, 2)}
    ours = TextEncoder.load(write(state, tmp_path / "clip.safetensors"), SETTINGS, words, TEXT)
    same(ours.model.state_dict(), parts[2].state_dict())


def test_text_encoder_of_a_folder(parts, folder, tmp_path):
    """Our states are transformers' own, of a folder written today and of one with the names of before."""
    theirs = CLIPTextModel.from_pretrained(folder / "text_encoder")
    old = tmp_path / "old"
    shutil.copytree(folder, old)
    (file,) = (old / "text_encoder").glob("*.safetensors")
    state = {f"text_model.{k.removeprefix('text_model.')}": v for k, v in load_file(file).items()}
    save_file({**state, "text_model.embeddings.position_ids": torch.arange(77)[None]}, file, {"format": "pt"})
    for where in (folder, old):
        ours = TextEncoder.load(where, SETTINGS)
        same(ours.model.state_dict(), theirs.state_dict())
        ids = ours.tokenizer("a cat", padding="max_length", max_length=77, return_tensors="pt").input_ids
        with torch.no_grad():
            expected = theirs(ids).last_hidden_state
        torch.testing.assert_close(ours(["a cat"]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_clip_skip_leaves_out_the_last_layers(parts, folder, skip):
    """1 is the penultimate layer, as in diffusers and the public release; then the final norm."""
    ours = TextEncoder.load(folder, TextSettings(clip_skip=skip))
    model = parts[2]
    ids = ours.tokenizer("a cat", padding="max_length", max_length=77, return_tensors="pt").input_ids
    seen = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, out, i=i: seen.update({i: out}))
        for i, layer in enumerate(model.encoder.layers)
    ]
    with torch.no_grad():
        model(ids)
        expected = model.final_layer_norm(seen[len(model.encoder.layers) - 1 - skip])
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(ours(["a cat"]), expected, atol=1e-5, rtol=1e-5)


def test_the_real_vocabulary(shared, parts, tmp_path):
    """CLIP's own words, from a folder with nothing but vocab.json and merges.txt, beside a single file."""
    text = new_text(vocab_size=49408, bos_token_id=49406, eos_token_id=49407, pad_token_id=49407)
    path = write(single_file(text=text), tmp_path / "base.safetensors")
    sizes = {**TEXT, "vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407}
    ours = TextEncoder.load(path, SETTINGS, shared / "data/tokenizer", sizes)
    ids = ours.tokenizer("A photo of a cat").input_ids
    assert ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert ours(["a photo of a cat"]).shape == (1, 77, 32)


def test_a_single_file_says_that_it_needs_a_vocabulary(parts, tmp_path):
    path = write(single_file(*parts), tmp_path / "base.safetensors")
    with pytest.raises(
        CheckpointError, match="has no vocabulary; .*`hf download openai/clip-vit-large-patch14"
    ):
        TextEncoder.load(path, SETTINGS, None, TEXT)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no vocabulary"),
        (lambda folder: (folder / "tokenizer.json").write_text("<html>"), "is no readable vocabulary"),
        (lambda folder: (folder / "tokenizer.json").write_text("[]"), "is no readable vocabulary"),
    ],
)
def test_a_spoiled_vocabulary(parts, words, folder, tmp_path, spoil, message):
    shutil.copytree(words, tmp_path / "words")
    spoil(tmp_path / "words")
    with pytest.raises(CheckpointError, match=message):
        TextEncoder.load(folder, SETTINGS, tmp_path / "words")


def test_a_vocabulary_of_another_encoder(shared, folder):
    with pytest.raises(CheckpointError, match="has 49408 words, the text encoder knows 514"):
        TextEncoder.load(folder, SETTINGS, shared / "data/tokenizer")


# -- files that lack the part, or hold something else ---------------------------------------------------


def load(part, path, words):
    if part == "unet":
        return load_unet(path, UNET)
    return load_vae(path, VAE) if part == "vae" else TextEncoder.load(path, SETTINGS, words, TEXT)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("vae", "is a Stable Diffusion 1.5 model without a VAE; name another file"),
        ("text", "is a Stable Diffusion 1.5 model without a CLIP text encoder; name another file"),
    ],
)
def test_a_dreambooth_of_the_unet_alone(parts, words, tmp_path, part, message):
    path = write(single_file(parts[0]), tmp_path / "dreambooth.ckpt")
    same(spatial(load("unet", path, words)), parts[0].state_dict())
    with pytest.raises(CheckpointError, match=message):
        load(part, path, words)


IMAGE = "model.diffusion_model.input_blocks.0.0.weight"
TEXT_IN = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
FOREIGN = {
    "a Stable Diffusion XL model": {
        IMAGE: (320, 4, 3, 3),
        "model.diffusion_model.label_emb.0.0.weight": (1280, 2816),
        "conditioner.embedders.1.model.ln_final.weight": (1280,),
        "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, 2048),
    },
    "a Stable Diffusion XL refiner": {
        IMAGE: (384, 4, 3, 3),
        "conditioner.embedders.0.model.ln_final.weight": (1280,),
    },
    "a Stable Diffusion 2 model": {
        IMAGE: (320, 4, 3, 3),
        TEXT_IN: (320, 1024),
        "cond_stage_model.model.ln_final.weight": (1024,),
    },
    "a Stable Diffusion 3 model": {"model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": (3, 3)},
    "a Flux model": {"double_blocks.0.img_attn.qkv.weight": (3, 3)},
    "an inpainting model": {IMAGE: (320, 9, 3, 3), TEXT_IN: (320, 768)},
    "an instruct-pix2pix model": {IMAGE: (320, 8, 3, 3), TEXT_IN: (320, 768)},
    "a ControlNet": {"control_model.input_blocks.0.0.weight": (320, 4, 3, 3), IMAGE: (320, 4, 3, 3)},
    "a LoRA": {"lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 768), IMAGE: (3, 4, 3, 3)},
    "a textual inversion": {"emb_params": (2, 768)},
    "motion modules": {"down_blocks.0.motion_modules.0.temporal_transformer.norm.weight": (320,)},
    "MiDaS v2.1's depth network": {"pretrained.layer1.0.weight": (32, 3, 3, 3)},
    "a DPT depth network": {"pretrained.model.cls_token": (1, 1, 768)},
}


@pytest.mark.parametrize("part", ["unet", "vae", "text"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_other_models_are_named(words, tmp_path, part, kind):
    state = {key: torch.zeros(shape) for key, shape in FOREIGN[kind].items()}
    path = write(state, tmp_path / "file.safetensors")
    with pytest.raises(CheckpointError, match=f"file.safetensors: is {kind}, not a"):
        load(part, path, words)


def test_what_nobody_knows_is_refused(words, tmp_path):
    path = write({"transformer.wte.weight": torch.zeros(3)}, tmp_path / "gpt2.safetensors")
    with pytest.raises(
        CheckpointError, match="of no kind this project knows .it holds transformer.wte.weight"
    ):
        load_unet(path)


@pytest.mark.parametrize("key", ["extra.weight", "model.diffusion_model.extra.weight"])
def test_an_extra_key_is_named(parts, tmp_path, key):
    path = write({**single_file(*parts), key: torch.zeros(1)}, tmp_path / "base.safetensors")
    with pytest.raises(CheckpointError, match="extra.weight"):
        load_unet(path, UNET)


@pytest.mark.parametrize(
    ("part", "file", "change", "message"),
    [
        ("unet", "unet", {"addition_embed_type": "text_time"}, "is a Stable Diffusion XL model"),
        ("unet", "unet", {"cross_attention_dim": 1024}, "is a Stable Diffusion 2 model"),
        ("unet", "unet", {"in_channels": 9}, "is an inpainting model"),
        ("unet", "unet", {"_class_name": "FluxTransformer2DModel"}, "is a FluxTransformer2DModel"),
        ("unet", "unet", {"layers_per_block": 10**9}, "layers_per_block cannot be meant"),
        ("vae", "vae", {"scaling_factor": 0.13025}, "is the VAE of Stable Diffusion XL"),
        ("vae", "vae", {"_class_name": "AutoencoderDC"}, "'AutoencoderDC' is not a VAE this project knows"),
        ("text", "text_encoder", {"num_hidden_layers": 10**9}, "num_hidden_layers cannot be meant"),
    ],
)
def test_folders_of_other_models_are_named(folder, words, tmp_path, part, file, change, message):
    import json

    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    path = copy / file / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        load(part, copy, words)


def test_a_folder_without_the_part(tmp_path, words):
    for part in ("unet", "vae", "text"):
        with pytest.raises(CheckpointError, match="is no model folder"):
            load(part, tmp_path, words)
