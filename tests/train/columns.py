"""A built dataset with columns, and the small model whose nets made them."""

from __future__ import annotations

from pathlib import Path

from data_prep.build import build
from live2diff import toy
from live2diff.model.build import build as build_model
from live2diff.model.video_model import VideoModel
from tests.model.tiny import randomise
from train.settings import load_config

MODEL = ["experiment=tiny", "data.path=x", "model.settings.size=[32,32]"]


def make_model(folder: Path, seed: int = 0) -> VideoModel:
    """A tiny model with random weights, saved to `folder`."""
    model = build_model(load_config(MODEL)["model"], seed)
    randomise(model.depth, seed)  # as built, its depth is nearly the same everywhere
    model.save(folder)
    return model


def build_columns(folder: Path, videos: int = 4, *settings: str) -> Path:
    """A dataset of toy videos, not square, one clip of 24 frames each; the model is in FOLDER/model."""
    make_model(folder / "model")
    toy.write_videos(folder / "videos", videos, seconds=3, fps=8, size=(72, 56), depth=False)
    rest = ["prep=tiny", "size=40", "sources_per_shard=2", "val_fraction=0", "min_motion=null", "workers=1"]
    columns = ["columns=[latents,depth,text]", f"column_model={folder / 'model'}", "column_size=32"]
    build([str(folder / "videos")], folder / "dataset", [*rest, *columns, *settings])
    return folder / "dataset"
