"""Small whole models, with random values in every layer, and exports of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from live2diff.config import compose
from live2diff.interop.export import export
from live2diff.model.build import build
from live2diff.model.video_model import VideoModel
from live2diff.settings import Settings
from tests.model.tiny import randomise

# Two levels instead of four, and a short window: an export, with its certificate, takes a second.
UNET = {
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlockMotion", "DownBlockMotion"],
    "up_block_types": ["UpBlockMotion", "CrossAttnUpBlockMotion"],
}
WINDOW = {"window": 6, "warmup": 2}


def tiny_model(*, unet: dict[str, Any] | None = None, **settings: Any) -> VideoModel:
    """A small model; `unet` changes its UNet's sizes, `settings` what it says about itself."""
    config: Any = OmegaConf.to_container(compose("train", ["data.path=none"]).model)
    config["unet"]["config"] |= {**UNET, **(unet or {})}
    config["settings"] |= {key: settings.get(key, value) for key, value in WINDOW.items()}
    model = build(config)
    for seed, part in enumerate((model.unet, model.vae, model.text, model.depth)):
        randomise(part, seed)
    model.settings = Settings.from_dict({**model.settings.to_dict(), "size": (32, 32), **settings})
    return model


def tiny_export(folder: Path, model: VideoModel | None = None, **options: Any) -> Path:
    """`live2diff export` of a model that was saved first; returns the export's folder."""
    (model or tiny_model()).save(folder / "saved")
    export(folder / "saved", folder / "export", **options)
    return folder / "export"
