"""Models for measuring with: tiny, with random weights, from folders as real ones come."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def export(tmp_path_factory) -> Path:
    """A model for 32 x 32 pixels."""
    from omegaconf import OmegaConf

    from live2diff.config import compose
    from live2diff.model.build import build

    folder = tmp_path_factory.mktemp("export") / "tiny"
    config = OmegaConf.to_container(compose("train", ["data.path=none", "model.settings.size=[32,32]"]).model)
    build(config, seed=0).save(folder)
    return folder


@pytest.fixture(scope="session")
def clip_model(tmp_path_factory) -> Path:
    """A CLIP model that looks at 32 x 32 pixels."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    folder = tmp_path_factory.mktemp("clip") / "tiny-clip"
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": 100},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    torch.manual_seed(3)
    CLIPModel(config).save_pretrained(folder)
    square = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=square).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def depth_model(tmp_path_factory) -> Path:
    """A DPT that looks at 64 x 64 pixels."""
    from live2diff.depth import new_depth

    folder = tmp_path_factory.mktemp("depth") / "tiny-depth"
    torch.manual_seed(4)
    new_depth("tiny").save(folder)
    return folder
