"""Small synthetic videos, whose frames tell their number: what a build is fed in these tests."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE = (96, 64)


def blocks(count: int, seed: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """A square moving over a still, smooth background: one shot, unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    width, height = size
    coarse = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
    background = np.kron(coarse, np.ones((height // 4, width // 4, 1), np.uint8))
    colour, frames = rng.integers(0, 256, 3), []
    for number in range(count):
        frame = background.copy()
        left = 2 * number % (width - 16)
        frame[8:24, left : left + 16] = colour
        frames.append(frame)
    return frames


def numbered(count: int, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    """Each frame shows its number as eight black or white columns."""
    width, height = size
    bits = [[255 * (number >> bit & 1) for bit in range(8)] for number in range(count)]
    rows = [np.repeat(np.array(row, np.uint8), width // 8) for row in bits]
    return [np.broadcast_to(row[None, :, None], (height, width, 3)).copy() for row in rows]


def numbers(frames: Sequence[np.ndarray]) -> list[int]:
    """Frame numbers back from the pictures of `numbered`, whatever their size."""
    columns = [np.stack(np.array_split(frame.mean((0, 2)), 8)).mean(1) for frame in frames]
    return [sum(1 << bit for bit in range(8) if column[bit] > 127) for column in columns]


def write_timed(
    path: Path, frames: Sequence[np.ndarray], times_ms: Sequence[int], pixels: str = "yuv420p"
) -> None:
    """A video whose frames are shown at `times_ms`, however irregular."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.options = {"crf": "10", "bf": "0"}
        for frame, time in zip(frames, times_ms, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def write_gops(
    path: Path, frames: Sequence[np.ndarray], gop: int, b_frames: int, codec: str = "libx264"
) -> None:
    """24 frames per second, a key frame every `gop`, with up to `b_frames` B-frames in a row."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        stream.options = {"crf": "18", "sc_threshold": "0", "preset": "veryfast"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def set_rotation(path: Path, turns: int) -> None:
    """Give the track of an MP4 a display matrix that asks for quarter `turns` counter-clockwise."""
    data = bytearray(path.read_bytes())
    begin = data.index(b"tkhd") + 4 + 40  # version 0: the matrix is 40 bytes behind the box's name
    a, b = [(1, 0), (0, -1), (-1, 0), (0, 1)][turns]
    data[begin : begin + 36] = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
