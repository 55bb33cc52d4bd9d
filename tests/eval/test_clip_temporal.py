"""The CLIP score against torchmetrics, and what it says of clips that are the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

from live2diff.errors import CheckpointError, UsageError
from live2diff.eval.clip_temporal import Clip, ClipTemporal
from tests.eval.videos import pan, texture

CPU = torch.device("cpu")


def measured(clip: Clip, video: np.ndarray):
    measurement = ClipTemporal(clip).begin()
    for frame in video:
        measurement.add(frame, frame)
    return measurement.scores()["clip_temporal"]


def test_as_torchmetrics_says(clip_model):
    from torchmetrics.functional.multimodal import clip_score
    from transformers import CLIPImageProcessor, CLIPModel

    class Processor:
        """What torchmetrics asks of a processor, for pictures alone."""

        def __init__(self) -> None:
            self._processor = CLIPImageProcessor.from_pretrained(clip_model)

        def __call__(self, images: Any = None, **options: Any) -> Any:
            return self._processor(images=images, return_tensors="pt")

    video = np.stack([texture(40, 56, seed) for seed in range(20)])  # more than are embedded at once
    score = measured(Clip(str(clip_model), CPU), video)
    frames = [torch.from_numpy(frame).permute(2, 0, 1) for frame in video]

    class Features(torch.nn.Module):
        """transformers 5 gives an object where torchmetrics expects a tensor."""

        def __init__(self) -> None:
            super().__init__()
            self._model = CLIPModel.from_pretrained(clip_model)

        def get_image_features(self, pixels: torch.Tensor) -> torch.Tensor:
            found: Any = self._model.get_image_features(pixels)
            return found if isinstance(found, torch.Tensor) else found.pooler_output

    oracle = float(clip_score(frames[:-1], frames[1:], lambda: (Features(), Processor())))
    assert score.value == pytest.approx(oracle, abs=1e-3)
    assert score.value < 99.99  # or anything would do
    assert score.per_frame[0] is None and len(score.per_frame) == 20


def test_equal_frames_score_100(clip_model):
    clip = Clip(str(clip_model), CPU)
    frame = pan(1)
    score = measured(clip, np.repeat(frame, 3, axis=0))
    assert score.value == pytest.approx(100, abs=1e-4)
    assert measured(clip, frame).reason == "fewer than 2 frames"


def test_the_signature_names_the_weights(clip_model, tmp_path):
    from transformers import CLIPModel

    name = ClipTemporal(Clip(str(clip_model), CPU)).signatures()["clip_temporal"]["model"]
    assert str(name).startswith("tiny-clip ")
    other = CLIPModel.from_pretrained(clip_model)
    with torch.no_grad():
        other.visual_projection.weight += 0.01
    other.save_pretrained(tmp_path / "tiny-clip")
    (tmp_path / "tiny-clip/preprocessor_config.json").write_bytes(
        (clip_model / "preprocessor_config.json").read_bytes()
    )
    assert ClipTemporal(Clip(str(tmp_path / "tiny-clip"), CPU)).signatures()["clip_temporal"]["model"] != name


def test_a_model_that_is_none(tmp_path):
    with pytest.raises(UsageError, match="needs clip_model=FOLDER"):
        Clip(None, CPU)
    with pytest.raises(CheckpointError, match="clip_model=.*nowhere: is not on this machine"):
        Clip(str(tmp_path / "nowhere"), CPU)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="is no CLIP model") as error:
        Clip(str(tmp_path), CPU)
    assert "\n" not in str(error.value)
