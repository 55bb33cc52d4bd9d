"""`live2diff doctor`: what is here, what is missing, and how to get it; without the network."""

from __future__ import annotations

import socket

import pytest
import torch

from live2diff.cli import main


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """An empty working folder and hub cache, and no way out."""
    import huggingface_hub.constants as constants

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path


def test_the_machine_in_one_line_each(capsys):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("python", "torch", "gpu", "ffmpeg", "memory", "disk"),
        "next:",
    ]
    assert torch.__version__ in lines[1] and "GB free" in lines[5]


def test_a_machine_that_lacks_something(capsys, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "av", None)
    assert main(["doctor"]) == 5
    assert "problem: ffmpeg: install the package again" in capsys.readouterr().out


def test_models_of_the_paper(capsys):
    assert main(["doctor", "--models"]) == 4
    said = capsys.readouterr().out
    assert said.count("  missing  about ") == 3
    for words in (
        "for      model.unet.pretrained, model.vae.pretrained, model.text.pretrained",
        "licence  CreativeML Open RAIL-M",
        "get it   hf download stable-diffusion-v1-5/stable-diffusion-v1-5 unet/config.json ",
        "get it   hf download guoyww/animatediff mm_sd_v15.ckpt\n",
        "dpt_hybrid_384.pt https://github.com/isl-org/MiDaS/releases/download/v3/dpt_hybrid_384.pt\n",
        "0 of 3 models are here",
    ):
        assert words in said


def test_what_is_here_is_looked_at(alone, capsys):
    torch.save({"a.b": torch.zeros(250_000)}, alone / "mm.ckpt")
    (alone / "style.safetensors").write_text("<html>")
    words = ["model=sd15", "model.unet.motion=mm.ckpt", "model.loras=[{path: style.safetensors}]"]
    words += ["model.unet.depth_branch=gone.safetensors"]
    assert main(["doctor", "--models", *words]) == 4
    said = capsys.readouterr().out
    assert "mm.ckpt\n  for      model.unet.motion\n  here     mm.ckpt, 1.0 MB" in said
    assert (
        "for      model.loras[0].path\n  damaged  style.safetensors, 0.0 MB\n           is a web page" in said
    )
    assert "gone.safetensors\n  for      model.unet.depth_branch\n  missing  no such file or folder" in said
    assert "1 of 5 models are here" in said


def test_a_hub_folder_that_is_not_whole(alone, capsys):
    model = alone / "hub/models--madebyollin--taesd"
    (model / "refs").mkdir(parents=True)
    (model / "refs/main").write_text("abc")
    snapshot = model / "snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    words = ["--models", "model=tiny", "model.vae.pretrained=madebyollin/taesd"]
    assert main(["doctor", *words]) == 4
    assert "           lacks diffusion_pytorch_model.safetensors\n" in capsys.readouterr().out
    (snapshot / "diffusion_pytorch_model.safetensors").write_bytes(b"x")
    assert main(["doctor", *words]) == 0
    assert "1 of 1 models are here" in capsys.readouterr().out


def test_a_configuration_without_models(capsys):
    assert main(["doctor", "--models", "model=tiny"]) == 0
    assert "names no models" in capsys.readouterr().out


def test_wrong_settings_are_named(capsys):
    assert main(["doctor", "--models", "model=sd16"]) == 2
    assert "model=sd16: no such option; did you mean sd15?" in capsys.readouterr().err
