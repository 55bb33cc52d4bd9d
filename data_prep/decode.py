"""Open one untrusted file and nothing else, and decode its frames one by one. Runs in the child process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from live2diff.video import DECODE_ERRORS

# The containers videos come in. Left out on purpose: playlists and scripts (hls, dash, concat), which make
# libav open other files, pictures, subtitles, and guesses such as text shown as video.
CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,ogg,gif,mxf,ivf,nut,dv,rm,wtv"

# How a file that is no video begins -> what it probably is.
_NOT_VIDEO = {
    b"version https://git-lfs": "a git-LFS pointer; fetch the real file",
    b"<!doctype html": "a web page",
    b"<html": "a web page",
    b"\x89png": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"#extm3u": "a playlist",
    b"ffconcat": "a playlist",
    b"pk\x03\x04": "a ZIP archive",
}


class RejectedError(Exception):
    """The file gives no clip; the message is the reason, written for a person.

    Attributes:
        facts: what was learned about the file before it was rejected.
    """

    def __init__(self, reason: str, facts: dict[str, Any] | None = None):
        super().__init__(reason)
        self.facts = facts or {}


class DamageError(Exception):
    """Decoding stopped before the end of the file; the message says why."""


@dataclass(frozen=True)
class Geometry:
    """How a stored frame becomes an upright one with square pixels.

    Attributes:
        stored: (width, height) as coded, pixels.
        turns: quarter turns, counter-clockwise, that make the frame upright.
        upright: (width, height) after stretching to square pixels and turning.
    """

    stored: tuple[int, int]
    turns: int
    upright: tuple[int, int]


@contextmanager
def open_video(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Yield the container and its best video stream, with one decoder thread.

    Raises:
        RejectedError: not a video, or one without a video stream.
    """
    try:
        container = av.open(
            path,
            options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS},
            metadata_errors="replace",  # PyAV would fail on the metadata of some 3GP files
        )
    except MemoryError:
        raise
    except DECODE_ERRORS as error:
        raise RejectedError(_not_a_video(path, error)) from error
    with container:
        stream = container.streams.best("video")
        if not isinstance(stream, VideoStream):
            raise RejectedError("no video stream: audio only?")
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        yield container, stream


def decode(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Yield frames in display order up to the end of the file or the first sign of damage.

    Raises:
        DamageError: after the last good frame, if an error, a frame the decoder had to guess, or a change of
            the frame size comes next.
    """
    size = None
    try:
        for number, frame in enumerate(container.decode(stream)):
            if frame.is_corrupt:
                raise DamageError(f"frame {number} is corrupt")
            size = size or (frame.width, frame.height)
            if size != (frame.width, frame.height):
                raise DamageError(f"the frame size changes at frame {number}")
            yield frame
    except MemoryError:
        raise
    except DECODE_ERRORS as error:
        raise DamageError(_message(error)) from error


def geometry(frame: VideoFrame, stream: VideoStream) -> Geometry:
    """Geometry of a stream, read off its first frame."""
    aspect = float(stream.sample_aspect_ratio or 1)
    if not 0.25 <= aspect <= 4:
        aspect = 1.0  # headers lie; no camera has pixels like that
    turns = round(frame.rotation / 90) % 4
    width, height = max(1, round(frame.width * aspect)), frame.height
    upright = (height, width) if turns % 2 else (width, height)
    return Geometry((frame.width, frame.height), turns, upright)


def picture(frame: VideoFrame, size: tuple[int, int], turns: int, pixels: str = "rgb24") -> np.ndarray:
    """Upright uint8 picture (H, W, 3) of `size` = (width, height) after turning.

    Colour matrix and range follow the frame's tags; 10-bit samples lose their two low bits. HDR is *not* tone
    mapped: it comes out flat, but monotone and in range.
    """
    width, height = size if turns % 2 == 0 else size[::-1]
    shrinks = width * height <= frame.width * frame.height
    scaled = frame.reformat(
        width=width,
        height=height,
        format=pixels,
        interpolation="AREA" if shrinks else "BICUBIC",  # area averaging does not alias
        threads=1,
    )
    return np.ascontiguousarray(np.rot90(scaled.to_ndarray(), turns))


def short_side(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """`size` = (width, height) scaled to a short side of `pixels`, both sides rounded to even numbers."""
    scale = pixels / min(size)
    width, height = (max(2, round(side * scale / 2) * 2) for side in size)
    return width, height


def _not_a_video(path: str, error: BaseException) -> str:
    with open(path, "rb") as file:
        head = file.read(64).lstrip().lower()
    if not head:
        return "cannot be opened: the file is empty"
    for start, name in _NOT_VIDEO.items():
        if head.startswith(start):
            return f"cannot be opened: not a video (looks like {name})"
    return f"cannot be opened: {_message(error)}"


def _message(error: BaseException) -> str:
    # The library's last log line ("moov atom not found") says more than its error code ("Invalid data").
    log = getattr(error, "log", None)
    text = log[2] if log else getattr(error, "strerror", None) or str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__
