"""Frames out of one encoded clip, from memory: PyAV, or decord or torchcodec where someone prefers them.

All seek to the key frame before the first wanted frame and decode on from there, in one thread: loader
workers are what runs side by side.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from importlib import import_module
from typing import Protocol, cast

import av
import numpy as np

from live2diff.errors import SetupError

KINDS = ("pyav", "decord", "torchcodec")


class VideoReader(Protocol):
    """Reads a few frames of a clip of constant frame rate, as `data_prep` writes it."""

    def __call__(self, data: bytes, start: int, count: int, stride: int) -> np.ndarray:
        """`count` frames from frame `start` on, `stride` apart: uint8 RGB (count, H, W, 3).

        Raises:
            Exception: any kind, on bytes that are no video or end before the last frame wanted.
        """
        ...


def find_reader(kind: str) -> VideoReader:
    """The reader of one of `KINDS`. Raises SetupError when its package cannot be used here."""
    return _MAKERS[kind]()


def read_pyav(data: bytes, start: int, count: int, stride: int) -> np.ndarray:
    """`VideoReader` through PyAV.

    Raises:
        ValueError: no picture, no frame rate, or the clip ends before the last frame wanted.
        av.FFmpegError: the bytes are no video, or do not decode.
    """
    wanted = range(start, start + count * stride, stride)
    frames = []
    # Nothing but what lies in these bytes: a clip could be a list of other files.
    with av.open(io.BytesIO(data), format="mp4", options={"protocol_whitelist": "none"}) as container:
        if not container.streams.video:
            raise ValueError("the clip holds no video")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        rate, base = stream.average_rate, stream.time_base
        if not rate or not base:
            raise ValueError("the clip states no frame rate")
        first = stream.start_time or 0
        container.seek(first + int(start / rate / base), stream=stream)
        for frame in container.decode(stream):
            frame = cast(av.VideoFrame, frame)
            index = round((cast(int, frame.pts) - first) * base * rate)
            if index in wanted:
                frames.append(frame.to_ndarray(format="rgb24"))
            if index >= wanted[-1]:
                break
    if len(frames) != count:
        raise ValueError(f"{len(frames)} of {count} frames found from frame {start} on, {stride} apart")
    return np.stack(frames)


def _pyav() -> VideoReader:
    return read_pyav


def _decord() -> VideoReader:
    decord = _package("decord")

    def read(data: bytes, start: int, count: int, stride: int) -> np.ndarray:
        _need_mp4(data)
        # From bytes it loses memory with every clip, from a file it does not; this file is memory too.
        with os.fdopen(os.memfd_create("clip"), "wb") as file:
            file.write(data)
            file.flush()
            video = decord.VideoReader(f"/proc/self/fd/{file.fileno()}", num_threads=1)
            return video.get_batch(list(range(start, start + count * stride, stride))).asnumpy()

    return read


def _torchcodec() -> VideoReader:
    decoders = _package("torchcodec.decoders")

    def read(data: bytes, start: int, count: int, stride: int) -> np.ndarray:
        _need_mp4(data)
        # A constant frame rate makes the approximate way exact, and saves a pass over the clip.
        video = decoders.VideoDecoder(
            data, dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="approximate"
        )
        return video.get_frames_in_range(start, start + (count - 1) * stride + 1, stride).data.numpy()

    return read


def _need_mp4(data: bytes) -> None:
    """These readers guess the format, and would open the files or addresses that a playlist names."""
    if data[4:8] != b"ftyp":
        raise ValueError("the clip is no MP4")


_MAKERS: dict[str, Callable[[], VideoReader]] = {
    "pyav": _pyav,
    "decord": _decord,
    "torchcodec": _torchcodec,
}


def _package(name: str):  # noqa: ANN202 - a module
    try:
        return import_module(name)
    except Exception as error:  # a missing library below it is a RuntimeError or an OSError
        package = name.partition(".")[0]
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SetupError(
            f"data.reader={package}: cannot be used here ({reason}); install {package}, or data.reader=pyav"
        ) from error
