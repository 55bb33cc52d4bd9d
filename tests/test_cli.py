"""The command line: quick help, one-line errors, the right exit codes, no traceback."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from omegaconf import OmegaConf

from live2diff.cli import main
from live2diff.config import compose
from live2diff.model.build import build
from live2diff.video import VideoReader, write_video


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "export"
    config = OmegaConf.to_container(compose("train", ["data.path=none", "model.settings.size=[32,32]"]).model)
    build(config, seed=0).save(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", 12)


def make_clip(path, frames, size=(48, 40)):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    write_video(path, [np.roll(picture, i, axis=1) for i in range(frames)], fps=12.5)
    return path


def test_help_needs_no_torch():
    code = "import sys, live2diff.cli as cli; cli._parser().format_help(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "words",
    [[], ["train"], ["export"], ["stream"], ["data"], ["ckpt"], ["doctor"], ["bench"], ["eval"], ["ablate"]]
    + [["bench", name] for name in ("data", "train", "stream")]
    + [["eval", name] for name in ("run", "compare", "list", "caption")]
    + [["data", name] for name in ("build", "check", "report", "show", "toy")],
)
def test_every_command_has_help(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    assert "usage: live2diff" in capsys.readouterr().out


def test_stream_keeps_rate_and_length(export, clip, tmp_path, capsys):
    out, picture = tmp_path / "out.mp4", tmp_path / "pair.png"
    words = ["stream", str(export), "--input", str(clip), "--output", str(out), "--prompt", "a red circle"]
    assert main([*words, "--side-by-side", str(picture)]) == 0
    with VideoReader(out) as video:
        assert (float(video.fps), video.size, len(list(video))) == (12.5, (32, 32), 12)
    assert picture.read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr()
    assert f"{out}: 12 frames of 32x32" in said.out
    assert main(words) == 2  # it exists now
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--steps", "20,30,40", "--size", "40x24", "--noise", "fixed"]) == 0
    with VideoReader(out) as video:
        assert (video.size, len(list(video))) == ((40, 24), 12)


def broken(tmp_path, kind):
    path = tmp_path / f"{kind}.mp4"
    if kind == "html":
        path.write_text("<html>404</html>")
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("html", "cannot be read as a video"),
        ("empty", "cannot be read as a video"),
        ("folder", "is not a file"),
        ("missing", "no such video file"),
    ],
)
def test_bad_input_is_one_line(export, tmp_path, capsys, kind, message):
    path, out = broken(tmp_path, kind), tmp_path / "out.mp4"
    assert main(["stream", str(export), "--input", str(path), "--output", str(out)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert [line for line in said if line.startswith("error:")] == said[-1:]
    assert str(path) in said[-1] and message in said[-1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ([path.name] if path.exists() else [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "30x32"], "multiples of 8"),
        (["--steps", "40,30"], "rising"),
        (["--steps", "60"], "0 to 49"),
        (["--output", "out.avi"], "must be named .mp4 or .mkv"),
        (["--steps", "40", "--strength", "0.5"], "give one of them"),
        (["--strength", "1.2"], "above 0, up to 1"),
        (["--device", "gpu"], "expected auto, cpu"),
        (["--seed", "-1"], "whole number from 0"),
        (["--side-by-side", "pair.xyz"], "must be named .png"),
        (["--nonsense"], "unknown argument '--nonsense'"),
    ],
)
def test_wrong_use_is_one_line(export, clip, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["stream", str(export), "--input", str(clip), "--output", "out.mp4", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def spoil(export, tmp_path, name, change):
    import shutil

    copy = tmp_path / "export"
    shutil.copytree(export, copy)
    path = copy / name
    if change is None:
        path.unlink()
    else:
        path.write_text(change(path.read_text()) if path.suffix == ".json" else change(""))
    return copy


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", None, "no such folder|neither an exported model"),
        ("config.json", lambda t: "{", "not a readable JSON file"),
        ("config.json", lambda t: t.replace('"format": "live2diff"', '"format": "x"'), "format='x'"),
        (
            "config.json",
            lambda t: t.replace('"format_version": "1.', '"format_version": "9.'),
            "update live2diff",
        ),
        ("config.json", lambda t: t.replace('"warmup": 8', '"warmup": 16'), "warmup=16; expected 0 to 15"),
        ("config.json", lambda t: t.replace('"warmup": 8', '"warmup": 4'), "warmup=4, but the weights"),
        ("config.json", lambda t: t.replace('"linear"', '"cosine"'), "noise.kind='cosine'"),
        ("unet/config.json", lambda t: t.replace('"layers_per_block": 1', '"layers_per_block": 2'), "unet"),
        ("unet/diffusion_pytorch_model.safetensors", lambda t: "<html>", "unet"),
        ("depth/model.safetensors", None, "depth"),
        ("vae/config.json", lambda t: t.replace("AutoencoderKL", "AutoencoderXX"), "AutoencoderXX"),
    ],
)
def test_a_spoiled_export_is_one_line(export, clip, tmp_path, capsys, name, change, message):
    import re

    copy = spoil(export, tmp_path, name, change)
    assert main(["stream", str(copy), "--input", str(clip), "--output", str(tmp_path / "out.mp4")]) == 4
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(said) == 1 and re.search(message, said[0]) and str(copy) in said[0], said


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_weights_are_not_made_up(export, clip, tmp_path, capsys, part):
    """The libraries would start them at random, with no more than a warning."""
    from safetensors.torch import load_file, save_file

    copy = spoil(export, tmp_path, "README.md", lambda text: "")
    (path,) = (copy / part).glob("*.safetensors")
    state = load_file(path)
    removed = sorted(state)[0]
    save_file({key: value.clone() for key, value in state.items() if key != removed}, path, {"format": "pt"})
    assert main(["stream", str(copy), "--input", str(clip), "--output", str(tmp_path / "out.mp4")]) == 4
    assert f"1 keys missing ({removed}" in capsys.readouterr().err


def test_overwrite_replaces_nothing_but_an_export(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/holiday.jpg").touch()
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "photos"), "--overwrite"]) == 2
    assert "is not an export" in capsys.readouterr().err
    assert (tmp_path / "photos/holiday.jpg").exists()


def test_a_target_that_cannot_be_written(export, clip, capsys):
    assert main(["stream", str(export), "--input", str(clip), "--output", "/proc/nowhere/out.mp4"]) == 5
    assert "error: /proc/nowhere" in capsys.readouterr().err


def test_export_of_nothing(tmp_path, capsys):
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "out")]) == 4
    assert "no such folder" in capsys.readouterr().err


def test_training_on_nothing(tmp_path, capsys):
    words = ["experiment=tiny", f"data.path={tmp_path}/none", f"run_dir={tmp_path}/run"]
    assert main(["train", *words]) == 2
    assert "does not exist; make one with `live2diff data build`" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
