"""Translations of held-out toy scenes and what they are worth, measured against the truth.

Three ways: `stream`, `no depth` (the same stream without its depth branch), and `frames`: every frame on its
own by the same image model, with the same steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from live2diff import toy
from live2diff.eval.bootstrap import interval
from live2diff.eval.depth_mse import depth_mse_aligned
from live2diff.eval.flicker import flicker
from live2diff.eval.warp_error import warp_error
from live2diff.images import to_pixels, to_tensor
from live2diff.model.video_model import VideoModel
from live2diff.stream import Stream
from live2diff.stream.schedule import RowSchedule
from train.toy_image import image_half

FPS, SIZE = 8, (64, 64)


def translate(model: VideoModel, source: np.ndarray, prompt: str, way: str, seed: int = 0) -> np.ndarray:
    """uint8 RGB (F, H, W, 3) -> the same, in the style of `model`."""
    if way == "frames":
        return _frame_by_frame(model, source, prompt, seed)
    settings = model.settings
    try:
        model.settings = replace(settings, uses_depth=settings.uses_depth and way == "stream")
        stream = Stream(model, prompt, seed=seed)
        done = [out for frame in source for out in stream.push(frame)]
        return np.stack([*done, *stream.flush()])
    finally:
        model.settings = settings


@torch.no_grad()
def _frame_by_frame(model: VideoModel, source: np.ndarray, prompt: str, seed: int) -> np.ndarray:
    image, schedule = image_half(model.unet), RowSchedule(model.settings.noise, model.settings.steps)
    generator = torch.Generator().manual_seed(seed)
    latents = model.encode(to_tensor(source)[None])[0].transpose(0, 1)
    text = model.text([prompt]).expand(len(latents), -1, -1)
    for row, timestep in enumerate(schedule.timesteps):
        rows = slice(row, row + 1)
        noisy = schedule.add_noise(latents, torch.randn(latents.shape, generator=generator), rows)
        predicted = image(noisy, timestep.expand(len(noisy)), text).sample
        latents = schedule.denoise(noisy, predicted, rows)
    return to_pixels(model.decode(latents.transpose(0, 1)[None])[0]).numpy()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b.astype(float)) ** 2)))


def measure(
    model: VideoModel, look: str, scenes: int, frames: int, ways: tuple[str, ...]
) -> dict[str, dict[str, np.ndarray]]:
    """Figures by way and name, one for each of the first test scenes.

    warp_error along the exact flow where it is seen, x 1000; flicker x 1000; depth_mse of the net's depth of
    the output against the exact one, aligned, x 1000; psnr to the true translation, dB.
    """
    found: dict[str, dict[str, list[float]]] = {way: {} for way in ways}
    times = [i / FPS for i in range(frames)]
    for seed in range(toy.SPLITS["test"], toy.SPLITS["test"] + scenes):
        scene = toy.Scene.sample(seed)
        source, depth = toy.frames(seed, times, SIZE, "photo")
        truth, _ = toy.frames(seed, times, SIZE, look)
        flows = [toy.optical_flow(scene, *pair, SIZE) for pair in zip(times, times[1:], strict=False)]
        flow, seen = (np.stack(values) for values in zip(*flows, strict=True))
        for way in ways:
            out = translate(model, source, toy.caption(scene, look), way, seed)
            with torch.no_grad():
                estimated = model.depth(to_tensor(out).transpose(0, 1)).numpy()
            error, _ = warp_error(out, flow, mask=seen)
            assert error is not None
            values = {
                "warp_error": 1000 * error,
                "flicker": 1000 * flicker(out),
                "depth_mse": 1000 * float(np.mean(list(map(depth_mse_aligned, depth, estimated)))),
                "psnr": psnr(out, truth),
            }
            for name, value in values.items():
                found[way].setdefault(name, []).append(value)
    return {
        way: {name: np.array(values) for name, values in figures.items()} for way, figures in found.items()
    }


def less(better: Mapping[str, np.ndarray], worse: Mapping[str, np.ndarray], name: str) -> tuple[float, float]:
    """The 95 % interval of how much lower a figure is on average, over the scenes; above 0: it is lower."""
    ends = interval(list(worse[name] - better[name]))
    assert ends is not None
    return ends
