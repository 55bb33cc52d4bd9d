"""Models for streaming: tiny, with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from live2diff.config import compose
from live2diff.model.build import build
from live2diff.model.video_model import VideoModel
from tests.model.tiny import randomise


@pytest.fixture(scope="module")
def model() -> VideoModel:
    """In memory, every weight random: also those that begin at zero."""
    model = build(OmegaConf.to_container(compose("train", ["data.path=none"]).model), seed=0)
    randomise(model.unet)
    return model


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    """A folder, for 32 x 32 pixels."""
    folder = tmp_path_factory.mktemp("model") / "export"
    config = OmegaConf.to_container(compose("train", ["data.path=none", "model.settings.size=[32,32]"]).model)
    build(config, seed=0).save(folder)
    return folder
