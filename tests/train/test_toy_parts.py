"""The toy world's autoencoder and depth net: exact resume, and a model at the end in any case."""

from __future__ import annotations

import shutil

import torch
from safetensors.torch import load_file

from live2diff.model.video_model import VideoModel
from live2diff.runs import checkpoints
from train.run import train


def run(folder, updates, monkeypatch):
    monkeypatch.setattr("train.toy_parts._POOL", 4)
    settings = ["experiment=toy_parts", "trainer.batch=2", "trainer.save_every=2", "trainer.log_every=1"]
    return train([*settings, f"run_dir={folder}", f"trainer.updates={updates}"])


def test_resume_is_exact(tmp_path, monkeypatch):
    # A learning rate that knows the run's length: only a kill, not another length, may come between.
    folder = tmp_path / "run"
    run(folder, 4, monkeypatch)
    last = checkpoints(folder)[-1]
    whole = load_file(last / "weights.safetensors")
    shutil.rmtree(last)
    shutil.rmtree(folder / "model")
    run(folder, 4, monkeypatch)
    parts = load_file(last / "weights.safetensors")
    for name, tensor in whole.items():
        assert torch.equal(tensor, parts[name]), name


def test_a_run_killed_before_its_model_was_written_writes_it(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    run(folder, 2, monkeypatch)
    assert f"next: live2diff train experiment=toy_base model.saved={folder}" in capsys.readouterr().out
    first = VideoModel.load(folder / "model")
    shutil.rmtree(folder / "model")
    run(folder, 2, monkeypatch)
    second = VideoModel.load(folder / "model")
    for part in ("vae", "depth"):
        for one, two in zip(
            getattr(first, part).parameters(), getattr(second, part).parameters(), strict=True
        ):
            assert torch.equal(one, two)
    assert first.settings == second.settings
    assert "done already" not in capsys.readouterr().out
    run(folder, 2, monkeypatch)
    assert "done already" in capsys.readouterr().out
