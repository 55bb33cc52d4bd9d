"""What the toy runs made comes back out of the packed files: in half precision, by the real loaders."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from live2diff.interop.animatediff import is_spatial
from live2diff.model.build import build, load_model
from live2diff.model.video_model import VideoModel
from tests.model.tiny import randomise
from tests.train.shards import make_dataset
from train.run import train
from train.settings import load_config
from train.toy_pack import main

PARTS = ("toy_depth", "toy_cartoon", "toy_drawing")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for seed, name in enumerate(PARTS):
        model = build(load_config(["experiment=toy_vae"])["model"], seed)
        randomise(model.unet, seed)
        model.save(folder / name)
    data = make_dataset(folder / "data", shards=1, clips_per_shard=2)
    for name in ("toy_motion", "toy_stage2"):
        words = [f"experiment={name}", f"model.saved={folder / 'toy_cartoon'}", f"data.path={data}"]
        words += ["validation=off", "data.size=32", "trainer.updates=1", "trainer.batch=1"]
        train([*words, f"run_dir={folder / name}"])
    return folder


def built(out: Path, style: str, motion: str) -> VideoModel:
    settings = {
        "unet.pretrained": out / style,
        "unet.motion": out / motion,
        "vae.pretrained": out / "cartoon",
        "text.pretrained": out / "cartoon",
        "depth.weights": out / "depth.safetensors",
    }
    overrides = [f"model.{key}={value}" for key, value in settings.items()]
    return build(load_config(["experiment=toy_stage1", "data.path=none", *overrides])["model"])


def agree(packed: torch.nn.Module, source: torch.nn.Module, chosen=lambda name: True) -> None:
    state, expected = packed.state_dict(), source.state_dict()
    names = [name for name in expected if chosen(name)]
    assert names
    for name in names:
        assert torch.equal(state[name], expected[name].half().float()), name


def test_every_part_comes_back_in_half_precision(runs: Path, tmp_path: Path, capsys) -> None:
    main([str(runs), "--out", str(tmp_path)])
    main([str(runs), "--out", str(tmp_path), "--stream"])
    assert str(tmp_path) in capsys.readouterr().out
    models = {name: load_model(runs / name) for name in PARTS}
    motion, streaming = (load_model(runs / name, "ema") for name in ("toy_motion", "toy_stage2"))
    for style in ("cartoon", "drawing"):
        model = built(tmp_path, style, "motion.safetensors")
        agree(model.unet, models[f"toy_{style}"].unet, is_spatial)
        agree(model.unet, motion.unet, lambda name: "motion_modules" in name)
        agree(model.vae, models["toy_cartoon"].vae)
        agree(model.text.model, models["toy_cartoon"].text.model)
        agree(model.depth, models["toy_depth"].depth)
    model = built(tmp_path, "drawing", "live2diff.safetensors")
    agree(model.unet, models["toy_drawing"].unet, is_spatial)
    agree(model.unet, streaming.unet, lambda name: not is_spatial(name))
    sums = dict(reversed(line.split("  ")) for line in (tmp_path / "SHA256SUMS").read_text().splitlines())
    assert {"cartoon/vae/config.json", "drawing/unet/config.json", "live2diff.safetensors"} <= sums.keys()
    for name, digest in sums.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    assert "vae" not in {path.name for path in (tmp_path / "drawing").iterdir()}
    assert json.loads((tmp_path / "cartoon/vae/config.json").read_text())["scaling_factor"] == 1.0
