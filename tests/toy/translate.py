"""Translations of held-out toy scenes and what they are worth, measured against the truth.

Three ways: `stream`, `no depth` (the same stream without its depth branch), and `frames`: every frame on its
own by the same image model, with the same steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from live2diff.eval.bootstrap import interval
from live2diff.images import to_pixels, to_tensor
from live2diff.model.video_model import VideoModel
from live2diff.stream.schedule import RowSchedule
from train.ablate.evaluate import translate
from train.ablate.measure import Measure
from train.ablate.scenes import TrueScene, held_out
from train.toy_image import image_half

# What `measure` gives, each with the figure it is and a factor.
FIGURES = {
    "warp_error": ("warp_error", 1000),
    "flicker": ("flicker", 1000),
    "depth_mse": ("depth_mse_aligned", 1000),
    "psnr": ("psnr", 1),
}


def shown(model: VideoModel, scene: TrueScene, way: str) -> np.ndarray:
    """The scene in the style of `model`: uint8 RGB (F, H, W, 3)."""
    if way == "frames":
        return _frame_by_frame(model, scene)
    settings = model.settings
    try:
        model.settings = replace(settings, uses_depth=settings.uses_depth and way == "stream")
        return translate(model, scene, settings.steps)
    finally:
        model.settings = settings


@torch.no_grad()
def _frame_by_frame(model: VideoModel, scene: TrueScene) -> np.ndarray:
    image, schedule = image_half(model.unet), RowSchedule(model.settings.noise, model.settings.steps)
    generator = torch.Generator().manual_seed(scene.seed)
    latents = model.encode(to_tensor(scene.source)[None])[0].transpose(0, 1)
    text = model.text([scene.caption]).expand(len(latents), -1, -1)
    for row, timestep in enumerate(schedule.timesteps):
        rows = slice(row, row + 1)
        noisy = schedule.add_noise(latents, torch.randn(latents.shape, generator=generator), rows)
        predicted = image(noisy, timestep.expand(len(noisy)), text).sample
        latents = schedule.denoise(noisy, predicted, rows)
    return to_pixels(model.decode(latents.transpose(0, 1)[None])[0]).numpy()


def measure(
    model: VideoModel, look: str, scenes: int, frames: int, ways: tuple[str, ...]
) -> dict[str, dict[str, np.ndarray]]:
    """Figures by way and name, one for each of the first test scenes.

    warp_error along the exact flow where it is seen, x 1000; flicker x 1000; depth_mse of the net's depth of
    the output against the exact one, aligned, x 1000; psnr to the true translation, dB.
    """
    values_of = Measure(model)
    found: dict[str, dict[str, list[float]]] = {way: {name: [] for name in FIGURES} for way in ways}
    for scene in held_out(scenes, frames, look):
        for way in ways:
            values = values_of(scene, shown(model, scene, way))
            for name, (figure, factor) in FIGURES.items():
                found[way][name].append(factor * values[figure])
    return {
        way: {name: np.array(values) for name, values in figures.items()} for way, figures in found.items()
    }


def less(better: Mapping[str, np.ndarray], worse: Mapping[str, np.ndarray], name: str) -> tuple[float, float]:
    """The 95 % interval of how much lower a figure is on average, over the scenes; above 0: it is lower."""
    ends = interval(list(worse[name] - better[name]))
    assert ends is not None
    return ends
