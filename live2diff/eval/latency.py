"""Latency: seconds a stream takes for a frame, from receiving it to producing one, and where they go.

Frames are pushed as fast as the stream takes them, as uint8 arrays, and come out as such. With T denoising
steps the frame that comes out is the one that went in T - 1 frames before: `latency_delay` is its whole way.
What is not counted: loading, the warm-up, and the first frames after it. Stages are timed in a second pass,
since asking the device for the time at every stage costs time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from live2diff import machine
from live2diff.bench.meter import Meter
from live2diff.bench.stream import EXCLUDED
from live2diff.eval.bootstrap import interval
from live2diff.eval.metric import Kind
from live2diff.eval.results import Figure, Signature
from live2diff.model.video_model import VideoModel
from live2diff.stream.engine import Stream
from live2diff.terminal import progress

# Functions of the model whose time is a stage's; one inside another counts for the outer.
_STAGES = {
    "encode": ("encode",),
    "depth": ("estimate_depth", "depth_latents"),
    "unet": ("unet.depth_residual", "unet.advance"),
    "decode": ("decode",),
}
KINDS = (
    Kind("latency", "time per frame, from receiving one to producing one", "s", "lower"),
    Kind("latency_delay", "from receiving a frame to producing the same frame", "s", "lower"),
    Kind("latency_encode", "of that: the VAE's encoder", "s", "lower"),
    Kind("latency_depth", "of that: the depth net, and its map through the VAE", "s", "lower"),
    Kind("latency_unet", "of that: the UNet", "s", "lower"),
    Kind("latency_decode", "of that: the VAE's decoder", "s", "lower"),
    Kind("latency_other", "of that: the rest, host to device and back among it", "s", "lower"),
)


def measure(
    model: VideoModel, frames: int, size: tuple[int, int], steps: tuple[int, ...] | None
) -> dict[str, Figure]:
    """All figures of `KINDS`, each the mean over `frames` frames of random pictures of `size`.

    Raises:
        UsageError: a size or steps that cannot be.
        SetupError: not enough memory.
    """
    with progress("latency", 2 * frames) as advance:
        bench = _Bench(model, frames, size, steps, advance)
        seconds = {**bench.whole(), **bench.stages()}
    signature: Signature = {
        "version": 1,
        "frames": frames,
        "resolution": f"{size[0]}x{size[1]}",
        "steps": ",".join(map(str, steps or model.settings.steps)),
        "device": _device(model.device),
        "threads": torch.get_num_threads() if model.device.type == "cpu" else 0,
        "dtype": str(model.unet.dtype).removeprefix("torch."),
        "excluded": f"warm-up and {EXCLUDED} frames",
        "reduction": "mean over frames",
    }
    figures = {}
    for kind in KINDS:
        low, high = interval(seconds[kind.name]) or (None, None)
        mean = float(np.mean(seconds[kind.name]))
        figures[kind.name] = Figure(dict(signature), mean, low, high, kind.unit, kind.better, videos=0)
    return figures


@dataclass(frozen=True)
class _Bench:
    """What both passes do: `frames` pushes, `advance` after each."""

    model: VideoModel
    frames: int
    size: tuple[int, int]
    steps: tuple[int, ...] | None
    advance: Callable[[], None]

    def whole(self) -> dict[str, list[float]]:
        """Seconds of every push, and of every frame's way through the pipeline."""
        stream, pictures = self._warm()
        began, ticks, delays = [], [], []
        for number in range(self.frames + stream.schedule.rows - 1):
            began.append(time.perf_counter())
            (_,) = stream.push(pictures[number % len(pictures)])  # on the host: the device is done with it
            now = time.perf_counter()
            ticks.append(now - began[-1])
            entered = number - (stream.schedule.rows - 1)
            if entered >= 0:
                delays.append(now - began[entered])
                self.advance()
        return {"latency": ticks[-self.frames :], "latency_delay": delays}

    def stages(self) -> dict[str, list[float]]:
        """Seconds of every push by stage."""
        stream, pictures = self._warm()
        meter = Meter(self.model.device)
        seconds: dict[str, list[float]] = {stage: [] for stage in (*_STAGES, "other")}
        for number in range(self.frames):
            with _timed(self.model, meter) as spent:
                whole, _ = meter.time(partial(stream.push, pictures[number % len(pictures)]))
            for stage, used in spent.items():
                seconds[stage].append(used)
            seconds["other"].append(max(0.0, whole - sum(spent.values())))
            self.advance()
        return {f"latency_{stage}": values for stage, values in seconds.items()}

    def _warm(self) -> tuple[Stream, list[np.ndarray]]:
        """A stream from which every push now brings a frame, and pictures to push."""
        generator = np.random.default_rng(0)
        shape = (self.size[1], self.size[0], 3)
        pictures = [generator.integers(0, 256, shape, dtype=np.uint8) for _ in range(4)]
        stream = Stream(self.model, "a street", size=self.size, steps=self.steps)
        for number in range(stream.warmup + EXCLUDED + stream.schedule.rows - 1):
            stream.push(pictures[number % len(pictures)])
        return stream, pictures


@contextmanager
def _timed(model: VideoModel, meter: Meter) -> Iterator[dict[str, float]]:
    """Inside, each stage adds its seconds to what is yielded."""
    spent = dict.fromkeys(_STAGES, 0.0)
    within = False

    def timing(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **options: Any) -> Any:
            nonlocal within
            if within:
                return function(*args, **options)
            within, found = True, None

            def call() -> None:
                nonlocal found
                found = function(*args, **options)

            try:
                spent[stage] += meter.time(call)[0]
            finally:
                within = False
            return found

        return timed

    replaced = []
    try:
        for stage, names in _STAGES.items():
            for name in names:
                part, _, attribute = name.rpartition(".")
                owner = getattr(model, part) if part else model
                setattr(owner, attribute, timing(stage, getattr(owner, attribute)))
                replaced.append((owner, attribute))
        yield spent
    finally:
        for owner, attribute in replaced:
            delattr(owner, attribute)  # the class's own function shows again


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else machine.describe()["cpu"]
