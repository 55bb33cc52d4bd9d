"""A few frames out of one encoded clip, from memory."""

from __future__ import annotations

import io
from typing import cast

import av
import numpy as np


def read_frames(data: bytes, start: int, count: int, stride: int) -> np.ndarray:
    """`count` frames of an MP4 from frame `start` on, `stride` apart: uint8 RGB (count, H, W, 3).

    Seeks to the key frame before `start`. The clip must have a constant frame rate, as `data_prep` writes it.

    Raises:
        ValueError: no picture, no frame rate, or the clip ends before the last frame wanted.
        av.FFmpegError: the bytes are no video, or do not decode.
    """
    wanted = range(start, start + count * stride, stride)
    frames = []
    with av.open(io.BytesIO(data)) as container:
        if not container.streams.video:
            raise ValueError("the clip holds no video")
        stream = container.streams.video[0]
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
