"""What comes with the package translates: steadier than frame by frame, and depth keeps the structure."""

from __future__ import annotations

import pytest

from live2diff.config import compose
from live2diff.model.build import build
from live2diff.model.video_model import VideoModel
from tests.toy.translate import less, measure


def streaming_model(look: str) -> VideoModel:
    from omegaconf import OmegaConf

    overrides = [f"model.unet.pretrained=toy:{look}", "model.unet.motion=toy:live2diff.safetensors"]
    config = compose("train", ["model=toy", "data.path=none", *overrides])
    return build(OmegaConf.to_container(config, resolve=True)["model"])  # pyright: ignore


def test_a_stream_is_steadier_than_its_frames() -> None:
    """A few scenes of the cartoon, whose clips the motion modules were trained on; the slow test has more."""
    found = measure(streaming_model("cartoon"), "cartoon", scenes=3, frames=12, ways=("stream", "frames"))
    for name in ("warp_error", "flicker"):
        assert less(found["stream"], found["frames"], name)[0] > 0, (name, found)


@pytest.mark.slow
@pytest.mark.parametrize("look", ["cartoon", "drawing"])
def test_streaming_and_depth_help_by_more_than_chance(look: str) -> None:
    found = measure(streaming_model(look), look, scenes=24, frames=32, ways=("stream", "no depth", "frames"))
    for way, figures in found.items():
        print(look, way, {name: round(float(values.mean()), 3) for name, values in figures.items()})
    for name in ("warp_error", "flicker"):
        assert less(found["stream"], found["frames"], name)[0] > 0, name
    assert less(found["stream"], found["no depth"], "depth_mse")[0] > 0
