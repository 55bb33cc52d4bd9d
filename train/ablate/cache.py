"""Table 3: the same stream with its cache of keys and values and without, in turn, frame by frame.

Both start from the same noise, so until a frame is evicted from the window they show the same pictures.
Afterwards they do not: what a cache keeps of a past frame was computed when that frame still saw older ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from live2diff.bench.rivals import NoCache
from live2diff.images import to_tensor, to_uint8
from live2diff.model.video_model import VideoModel
from live2diff.stream import Stream
from live2diff.stream.schedule import RowSchedule
from train.ablate.scenes import TrueScene


class WithoutCache:
    """A stream that computes the whole window anew for every frame and denoising step.

    Args:
        noise: one draw per denoising step for all frames, (T, C, h, w), as Stream's noise="fixed".
    """

    def __init__(self, model: VideoModel, prompt: str, schedule: RowSchedule, noise: torch.Tensor):
        self.model, self.schedule, self.noise = model, schedule, noise
        self.text = model.text([prompt])
        self.windows = [NoCache(model.unet) for _ in range(schedule.rows)]

    @torch.no_grad()
    def warm_up(self, frames: np.ndarray) -> np.ndarray:
        """The first Lw frames, uint8 RGB (Lw, H, W, 3), together."""
        images = to_tensor(frames)[None]
        first, self._range = self.model.settings.depth.warm_up(self.model.estimate_depth(images))
        return self._denoise(images, self.model.depth_latents(first), self._start)

    @torch.no_grad()
    def push(self, frame: np.ndarray) -> np.ndarray:
        """The next frame, uint8 RGB (H, W, 3)."""
        image = to_tensor(frame[None])[None]
        raw = self.model.estimate_depth(image)[:, 0]
        own, self._range = self.model.settings.depth.step(raw, self._range)
        return self._denoise(image, self.model.depth_latents(own[:, None]), self._step)[0]

    def _denoise(self, images: torch.Tensor, depth: torch.Tensor, predict: Callable[..., Any]) -> np.ndarray:
        clean = self.model.encode(images)
        for row in range(self.schedule.rows):
            at = slice(row, row + 1)
            # One row of noise for all frames: (1, C, h, w), and the frames stand where rows usually do.
            noisy = self.schedule.add_noise(clean[0].transpose(0, 1), self.noise[at], at)
            predicted = predict(row, noisy.transpose(0, 1)[None], depth)
            clean = self.schedule.denoise(noisy, predicted[0].transpose(0, 1), at).transpose(0, 1)[None]
        return to_uint8(self.model.decode(clean)[0])

    def _start(self, row: int, noisy: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        self.windows[row].warm_up(noisy, depth)
        return self.model.unet(noisy, self.schedule.timesteps[row], self.text, depth)

    def _step(self, row: int, noisy: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
        inputs = noisy[:, :, 0], self.schedule.timesteps[row : row + 1], self.text, depth[:, :, 0]
        return self.windows[row].step(*inputs).unsqueeze(2)


def compare_caches(
    model: VideoModel, scenes: Iterable[TrueScene], steps: Sequence[int], advance: Callable[[], None]
) -> dict[str, Any]:
    """Stream scenes of more frames than the window both ways.

    Returns:
        `cache_s` and `no_cache_s`: seconds of every frame after the window was full, from picture to picture;
        `before`, `after`: the largest and the mean difference of the pictures, in the 255 levels of a
        colour, until a frame was evicted, and from then on.
    """
    window, warmup = model.settings.window, model.settings.warmup
    times: dict[str, list[float]] = {"cache_s": [], "no_cache_s": []}
    before, after = [], []
    for scene in scenes:
        stream = Stream(model, scene.caption, steps=tuple(steps), seed=scene.seed, noise="fixed")
        plain = WithoutCache(model, scene.caption, stream.schedule, stream.state_dict()["fixed"])
        ours = [picture for frame in scene.source[:warmup] for picture in stream.push(frame)]
        theirs = list(plain.warm_up(scene.source[:warmup]))
        for place, frame in enumerate(scene.source[warmup:], warmup):
            start = time.perf_counter()
            ours += stream.push(frame)
            middle = time.perf_counter()
            theirs.append(plain.push(frame))
            if place >= window:
                times["cache_s"].append(middle - start)
                times["no_cache_s"].append(time.perf_counter() - middle)
        ours += stream.flush()
        apart = np.abs(np.stack(ours).astype(int) - np.stack(theirs))
        before.append(apart[:window])
        after.append(apart[window:])
        advance()
    return {**times, "before": _levels(before), "after": _levels(after)}


def _levels(apart: Sequence[np.ndarray]) -> dict[str, float]:
    return {"largest": int(np.max(apart)), "mean": round(float(np.mean(apart)), 4)}
