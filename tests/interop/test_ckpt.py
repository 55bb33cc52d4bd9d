"""`live2diff ckpt`: what a file is, what differs, what is averaged; said without trusting the file."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from live2diff.cli import main
from live2diff.interop.compare import compare
from live2diff.interop.inspect import inspect
from live2diff.model.video_model import VideoModel
from tests.interop import public
from tests.interop.exports import tiny_model


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A model folder; the files that `live2diff export` adds to it are no matter here."""
    folder = tmp_path_factory.mktemp("export") / "mine"
    tiny_model().to("cpu", torch.float16).save(folder)
    return folder


def said_by(capsys, *words):
    assert main(["ckpt", *map(str, words)]) == 0
    return capsys.readouterr().out


# -- inspect ----------------------------------------------------------------------------------------------


def test_inspect_an_export(export, capsys):
    said = said_by(capsys, "inspect", export)
    assert "an export of live2diff, fp16" in said and "window 6, warm-up 2" in said
    assert "spatial weights, motion modules, depth branch, 24 positions, no mid-block module" in said
    assert "a VAE" in said and "a CLIP text encoder" in said and "a DPT depth network" in said
    counted = sum(p.numel() for p in VideoModel.load(export).unet.state_dict().values())
    assert f"{counted / 1e6:.1f}M values, fp16" in said


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: public.new_unet().state_dict(), "spatial weights; in diffusers' layout"),
        (lambda: public.ldm_unet(public.new_unet().state_dict()), "a Stable Diffusion 1.5 model"),
        (lambda: public.new_adapter(length=32, middle=True).state_dict(), "32 positions, with a mid-block"),
        (lambda: public.new_vae().state_dict(), "a VAE"),
        (lambda: {"lora_unet_x.lora_up.weight": torch.zeros(2, 2)}, "a LoRA"),
        (lambda: {"flow_conv_in.conv_in.weight": torch.zeros(2, 2)}, "the public Live2Diff release's layout"),
        (lambda: {"strange.thing": torch.zeros(2, 2)}, "of no kind this project knows"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_inspect_names_the_layout(tmp_path, make, message, suffix):
    path = tmp_path / f"file{suffix}"
    state = {key: tensor.clone() for key, tensor in make().items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    assert message in "\n".join(inspect(path))


def test_inspect_the_real_lora(shared, capsys):
    said = said_by(capsys, "inspect", shared / "data/lora/sd15_lora_disney_rank1.safetensors")
    assert "a LoRA" in said and "386 tensors" in said and "unet:N:down: 144 tensors" in said


def test_inspect_shows_hostile_words_as_short_plain_lines(tmp_path):
    notes = {"a\x1b[31m\nb": "x" * 100_000, **{f"key{i}": "value" for i in range(1000)}}
    state = {
        "\x1b]0;title\x07" + "k" * 5000: torch.zeros(3),
        **{f"a{i}b.c": torch.zeros(1) for i in range(500)},
    }
    state |= {f"{word}.weight": torch.zeros(1) for word in ("one", "two", "three", *map(chr, range(97, 123)))}
    save_file(state, tmp_path / "hostile.safetensors", notes)
    lines = inspect(tmp_path / "hostile.safetensors")
    assert len(lines) < 40 and all(len(line) < 250 and line.isprintable() for line in lines)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", struct.pack("<Q", 2 << 30) + b"{", b"version https://git-lfs"]
)
def test_inspect_of_what_is_no_checkpoint_is_one_line(tmp_path, capsys, content):
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    assert main(["ckpt", "inspect", str(path)]) == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(path) in said


def test_inspect_of_folders(export, tmp_path, capsys):
    public.save_folder(tmp_path / "sd15")
    said = said_by(capsys, "inspect", tmp_path / "sd15")
    assert "unet/diffusion_pytorch_model.safetensors: spatial weights; in diffusers' layout" in said
    assert "a folder of AutoencoderKL" in said_by(capsys, "inspect", tmp_path / "sd15/vae")
    (tmp_path / "empty").mkdir()
    assert main(["ckpt", "inspect", str(tmp_path / "empty")]) == 4
    assert "holds no weight files" in capsys.readouterr().err
    assert main(["ckpt", "inspect", str(tmp_path / "nowhere")]) == 4


# -- diff -------------------------------------------------------------------------------------------------


def test_diff_counts_every_tensor_once(tmp_path):
    first = {"same": torch.ones(3), "cast": torch.ones(2), "moved": torch.zeros(4), "shape": torch.zeros(2)}
    second = {"same": torch.ones(3), "cast": torch.ones(2).half(), "moved": torch.tensor([0, 0, -0.5, 0.25])}
    save_file({**first, "gone": torch.zeros(1)}, tmp_path / "a.safetensors")
    torch.save({**second, "shape": torch.zeros(3), "new": torch.zeros(1)}, tmp_path / "b.ckpt")
    found = compare(tmp_path / "a.safetensors", tmp_path / "b.ckpt")
    assert (found.equal, found.recast) == (1, 1)
    assert (found.only_first, found.only_second) == (["gone"], ["new"])
    assert found.changed == {"shape": float("inf"), "moved": 0.5}


def test_diff_of_exports(export, tmp_path, capsys):
    model = VideoModel.load(export, dtype=None)
    tensors = sum(len(part.state_dict()) for part in (model.unet, model.vae, model.text.model, model.depth))
    assert said_by(capsys, "diff", export, export) == f"{tensors} tensors are equal to the bit\n"
    with torch.no_grad():
        model.unet.conv_in.bias[3] += 0.25
    model.save(tmp_path / "other")
    said = said_by(capsys, "diff", export, tmp_path / "other")
    assert "1 differ, by at most:\n  0.25  unet.conv_in.bias\n" in said


# -- the average in Stable Diffusion's own files ----------------------------------------------------------


def test_the_average_of_a_single_file_takes_the_place_of_the_weights(tmp_path, capsys):
    state = public.ldm_unet(public.new_unet().state_dict())
    average = {f"model_ema.{k.removeprefix('model.').replace('.', '')}": t + 1 for k, t in state.items()}
    notes = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(10)}
    other = {"first_stage_model.encoder.conv_in.weight": torch.ones(2)}
    torch.save({"state_dict": {**state, **average, **notes, **other}}, tmp_path / "full.ckpt")
    out = tmp_path / "ema.safetensors"
    assert f"{len(state)} averaged tensors" in said_by(
        capsys, "extract-ema", tmp_path / "full.ckpt", "--out", out
    )
    found = load_file(out)
    assert found.keys() == {*state, *other}
    assert all(torch.equal(found[key], tensor + 1) for key, tensor in state.items())
    assert main(["ckpt", "extract-ema", str(out), "--out", str(tmp_path / "again.safetensors")]) == 4
    assert "holds no average" in capsys.readouterr().err


# -- merge-lora -------------------------------------------------------------------------------------------


def test_merge_lora_gives_a_certified_export_that_says_so(tmp_path, capsys):
    model = tiny_model()
    model.save(tmp_path / "base")
    path = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    weight = model.unet.get_submodule(path).weight
    lora = {
        f"lora_unet_{path.replace('.', '_')}.lora_down.weight": torch.randn(2, weight.shape[1]),
        f"lora_unet_{path.replace('.', '_')}.lora_up.weight": torch.randn(weight.shape[0], 2),
        f"lora_unet_{path.replace('.', '_')}.alpha": torch.tensor(1.0),
    }
    save_file(lora, tmp_path / "style.safetensors")
    said = said_by(
        capsys,
        "merge-lora",
        tmp_path / "base",
        "--lora",
        f"{tmp_path / 'style.safetensors'}:0.5",
        "--out",
        tmp_path / "styled",
    )
    assert "with 1 LoRA in its weights" in said and "certified" in said
    down, up, _ = lora.values()
    merged = VideoModel.load(tmp_path / "styled").unet.get_submodule(path).weight
    assert torch.allclose(merged, weight + 0.5 * 1 / 2 * up @ down, atol=1e-6)
    found = compare(tmp_path / "base", tmp_path / "styled")
    assert list(found.changed) == [f"unet.{path}.weight"]
    card = (tmp_path / "styled/README.md").read_text()
    assert "| LoRA at 0.5 | `style.safetensors` |" in card
    assert json.loads((tmp_path / "styled/parity.json").read_text())["certified"]


@pytest.mark.parametrize(
    "words", [[], ["inspect"], ["diff"], ["convert"], ["merge-lora"], ["extract-ema"], ["verify"]]
)
def test_every_command_has_help(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["ckpt", *words, "--help"])
    assert stop.value.code == 0
    assert "usage: live2diff ckpt" in capsys.readouterr().out
