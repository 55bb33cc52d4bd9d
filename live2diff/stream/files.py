"""Translate a video file to a video file."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from live2diff.errors import SetupError, UsageError
from live2diff.files import staged_file
from live2diff.images import cover
from live2diff.model.build import load_model
from live2diff.stream.engine import Noise, Stream
from live2diff.terminal import progress
from live2diff.video import VideoReader, VideoWriter


def translate(
    export: str | Path,
    input: str | Path,
    output: str | Path,
    *,
    prompt: str = "",
    steps: tuple[int, ...] | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    noise: Noise = "fresh",
    device: str = "auto",
    side_by_side: str | Path | None = None,
    overwrite: bool = False,
) -> None:
    """Stream `input` through the model in `export`, and write as many frames at the same rate to `output`.

    Frames are resized to cover `size` and cut to it. See `Stream` for the other arguments.

    Args:
        device: "auto" takes a GPU when there is one.
        side_by_side: also write a PNG with input frames above output frames.

    Raises:
        UsageError: an input that cannot be read or is shorter than the warm-up, an output that exists.
        CheckpointError: an export that cannot be loaded.
    """
    for target in filter(None, (output, side_by_side)):
        if Path(target).exists() and not overwrite:
            raise UsageError(f"{target}: exists already; choose another name or add --overwrite")
    for target, suffix in ((output, ".mp4"), (side_by_side, ".png")):
        if target is not None and Path(target).suffix.lower() != suffix:
            raise UsageError(f"{target}: must be named {suffix}")
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed}: expected a whole number from 0 to 2^63 - 1")
    with VideoReader(input) as video:
        model = load_model(export).to(_device(device))
        if model.text.is_too_long(prompt):
            limit = model.settings.text.max_length
            print(f"warning: the prompt is longer than {limit} tokens; its end is cut off")
        stream = Stream(model, prompt, size=size, steps=steps, seed=seed, noise=noise)
        before, after = Strip(), Strip()
        frames = before.watch(cover(frame, stream.size) for frame in video)
        count, start = 0, time.monotonic()
        with VideoWriter(output, video.fps, stream.size) as writer:
            with progress("streaming", video.frames or None) as advance:
                for frame in after.watch(_stream_all(stream, frames, str(input))):
                    writer.write(frame)
                    advance()
                    count += 1
        speed = count / (time.monotonic() - start)
    print(f"{output}: {count} frames of {stream.size[0]}x{stream.size[1]}, {speed:.1f} frames per second")
    if side_by_side is not None:
        save_side_by_side(side_by_side, before.row(), after.row())
        print(f"{side_by_side}: input above output")


def _stream_all(stream: Stream, frames: Iterable[np.ndarray], name: str) -> Iterator[np.ndarray]:
    for frame in frames:
        yield from stream.push(frame)
    try:
        yield from stream.flush()
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None


class Strip:
    """About `MOST` evenly spaced frames of a video whose length is not known beforehand."""

    MOST = 8

    def __init__(self) -> None:
        self._every = 1
        self._count = 0
        self._frames: dict[int, np.ndarray] = {}

    def watch(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Pass `frames` through, keeping some."""
        for frame in frames:
            if self._count % self._every == 0:
                self._frames[self._count] = frame
            if len(self._frames) > self.MOST:
                self._every *= 2
                self._frames = {i: kept for i, kept in self._frames.items() if i % self._every == 0}
            self._count += 1
            yield frame

    def row(self) -> np.ndarray:
        """The kept frames side by side, uint8 RGB (H, N * W, 3)."""
        return np.concatenate(list(self._frames.values()), axis=1)


def save_side_by_side(path: str | Path, *rows: np.ndarray) -> None:
    """Write rows of equal width below each other as a PNG; small frames are enlarged to be seen."""
    picture = np.concatenate(rows)
    scale = max(1, round(192 * len(rows) / picture.shape[0]))
    picture = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    with staged_file(path) as stage:
        cv2.imwrite(str(stage), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda") and not re.fullmatch(r"cuda:\d", name):
        raise UsageError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SetupError(f"--device {name}: no CUDA GPU is visible; use --device cpu")
    return torch.device(name)
