"""Several streams on one model, all in one call of the UNet at every tick.

They share weights, size, steps and switches; each has its own prompt, seed and past. They come and go at any
time: a seat that is empty, or whose stream has no new frame, costs time in the call but changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from live2diff.errors import UsageError
from live2diff.model.video_model import VideoModel
from live2diff.stream.engine import Noise, Stream
from live2diff.stream.pipeline import Pipeline, Switches


class Batch:
    """Seats for up to `seats` streams.

        batch = Batch(model, seats=4)
        one, two = batch.join("a cartoon of a street"), batch.join("a painting of a street")
        done = batch.push({one: frame, two: other_frame})   # done[one]: frames that are finished
        batch.leave(two)

    Args:
        size, steps, switches: as for `Stream`.

    Raises:
        UsageError: fewer than one seat; a size or steps that cannot be.
    """

    def __init__(
        self,
        model: VideoModel,
        seats: int,
        *,
        size: tuple[int, int] | None = None,
        steps: tuple[int, ...] | None = None,
        switches: Switches = Switches(),  # noqa: B008 - frozen
    ):
        if seats < 1:
            raise UsageError(f"seats={seats}: expected 1 or more")
        self._pipeline = Pipeline(model, [""] * seats, size, steps, switches)
        self._seats: list[Stream | None] = [None] * seats

    def join(self, prompt: str, *, seed: int = 0, noise: Noise = "fresh") -> Stream:
        """A new stream in a free seat. Raises UsageError when all are taken."""
        if None not in self._seats:
            raise UsageError(f"all {len(self._seats)} seats are taken: let a stream leave, or make more")
        seat = self._seats.index(None)
        self._pipeline.forget(seat)
        stream = Stream(self._pipeline.model, prompt, seed=seed, noise=noise, seat=(self._pipeline, seat))
        self._seats[seat] = stream
        return stream

    def leave(self, stream: Stream) -> list[np.ndarray]:
        """Free a stream's seat; returns its last frames, as `Stream.flush` does."""
        self._need(stream)
        done = stream.flush()
        self._seats[self._seats.index(stream)] = None
        stream.leave()
        return done

    def push(self, frames: Mapping[Stream, np.ndarray]) -> dict[Stream, list[np.ndarray]]:
        """`Stream.push` for all of them together: a new frame for each, uint8 RGB (H, W, 3)."""
        for stream, frame in frames.items():
            self._need(stream)
            stream.check(frame)
        done = {stream: stream.begin(frame) for stream, frame in frames.items()}
        if None in done.values():
            self._pipeline.run()
        return {
            stream: stream.finish(frames[stream]) if early is None else early
            for stream, early in done.items()
        }

    def _need(self, stream: Stream) -> None:
        if stream not in self._seats:
            raise UsageError("this stream has no seat here: it left, or is of another batch")
