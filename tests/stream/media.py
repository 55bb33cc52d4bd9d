"""Small videos with sound, a stream that shows what goes in, and reading of what came out."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BEEP = 440  # Hz


class Echo:
    """Gives every frame back as it was, as late as a model with these rows and warm-up would."""

    def __init__(self, size: tuple[int, int] = (64, 48), warmup: int = 8, rows: int = 2):
        self.size, self.warmup, self._delay = size, warmup, rows - 1
        self._warm: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []

    def push(self, frame: np.ndarray) -> list[np.ndarray]:
        assert frame.shape == (self.size[1], self.size[0], 3) and frame.dtype == np.uint8
        if len(self._warm) < self.warmup:
            self._warm.append(frame)
            return self._warm if len(self._warm) == self.warmup else []
        self._rows.append(frame)
        return [self._rows.pop(0)] if len(self._rows) > self._delay else []

    def flush(self) -> list[np.ndarray]:
        short = self._warm if 0 < len(self._warm) < self.warmup else []
        done, self._rows = self._rows, []
        return [*short, *done]


def write(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    times: Sequence[float] | None = None,
    fps: int = 25,
    video: str = "libx264",
    sound: str | None = None,
    rate: int = 48_000,
    beeps: Sequence[float] = (),
    begin: float = 0,
    aspect: Fraction | None = None,
) -> Path:
    """A video of `pictures` at `times` seconds (or `fps`), with `sound` of that codec: silence, and a short
    beep at each of `beeps`. All times are moved by `begin`; the sound starts at 0 all the same."""
    times = [number / fps for number in range(len(pictures))] if times is None else times
    with av.open(str(path), "w") as container:
        stream = container.add_stream(video, rate=fps)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90_000)
        if video == "libx264":
            stream.options = {"crf": "4", "bf": "2"}
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        track = container.add_stream(sound, rate=rate) if sound else None
        if track:
            track.layout = "stereo"
            samples = np.zeros(round((begin + times[-1] + 1.2) * rate), np.float32)
            for beep in beeps:
                first, length = round((begin + beep) * rate), rate // 10
                samples[first : first + length] = 0.5 * np.sin(2 * np.pi * BEEP / rate * np.arange(length))
            done = 0
        for picture, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round((begin + time) * 90_000), Fraction(1, 90_000)
            container.mux(stream.encode(frame))
            while track and done < (begin + time + 1) * rate and done < len(samples):
                block = np.stack([samples[done : done + 960]] * 2)
                sounding = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
                sounding.sample_rate, sounding.pts, sounding.time_base = rate, done, Fraction(1, rate)
                container.mux(track.encode(sounding))
                done += 960
        container.mux(stream.encode(None))
        if track:
            container.mux(track.encode(None))
    return path


def still(count: int, size: tuple[int, int] = (96, 64), seed: int = 0) -> list[np.ndarray]:
    """`count` smooth pictures that change a little from one to the next."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, (4, 4, 3)).astype(np.uint8)
    picture = np.kron(coarse, np.ones((size[1] // 4, size[0] // 4, 1), np.uint8))
    return [np.roll(picture, 2 * number, axis=1) for number in range(count)]


def times_of(path: Path) -> list[float]:
    """When each frame that decodes is shown, seconds."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(container.streams.best("video"))]


def pictures_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [
            frame.to_ndarray(format="rgb24") for frame in container.decode(container.streams.best("video"))
        ]


def packets_of(path: Path) -> list[tuple[float, bytes]]:
    """Time and content of the best audio stream's packets; none without sound."""
    with av.open(str(path), metadata_errors="replace") as container:
        stream = container.streams.best("audio")
        if stream is None:
            return []
        packets = [packet for packet in container.demux(stream) if packet.size]
        return [(float(packet.pts * packet.time_base), bytes(packet)) for packet in packets]


def beeps_of(path: Path) -> list[float]:
    """When beeps begin, seconds, to about a millisecond."""
    with av.open(str(path)) as container:
        stream = container.streams.best("audio")
        to_mono = av.AudioResampler(format="flt", layout="mono", rate=48_000)
        chunks = [
            (frame.time, frame.to_ndarray()[0])
            for decoded in container.decode(stream)
            for frame in to_mono.resample(decoded)
        ]
    begin = chunks[0][0]
    loud = np.abs(np.concatenate([chunk for _, chunk in chunks])) > 0.1
    starts = [i for i in np.flatnonzero(loud) if not loud[max(0, i - 2400) : i].any()]
    return [begin + i / 48_000 for i in starts]
