"""Open one untrusted file and nothing else, and decode its frames one by one. Runs in the child process."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple, cast

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream

from data_prep.hdr import HLG, PQ, to_sdr
from data_prep.heartbeat import beat
from live2diff.video import DECODE_ERRORS

# The containers videos come in. Left out on purpose: playlists and scripts (hls, dash, concat), which make
# libav open other files, pictures, subtitles, and guesses such as text shown as video.
CONTAINERS = "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,flv,asf,ogg,gif,mxf,ivf,nut,dv,rm,wtv"

_MAX_LOSSES = 100  # damaged places after which the rest of a file is given up
_MAX_FAILURES = 1000  # in a row, without a frame in between: what follows is lost too

_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT

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


class Loss(NamedTuple):
    """A damaged place of a stream. Frames are counted as `decode` yields them.

    Attributes:
        spoiled: first of the frames before it that are to be left out, because they may be built on what is
            damaged; equal to `frame` if there are none.
        frame: the next sound frame; past the last one if none follows.
        reason: what is wrong.
    """

    spoiled: int
    frame: int
    reason: str


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
            os.path.abspath(path),  # a relative name such as "http:x" would be taken for a URL
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
        if stream.codec_context is None:
            raise RejectedError("cannot be decoded: an unknown codec")
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        yield container, stream


def decode(
    container: InputContainer, stream: VideoStream, losses: list[Loss] | None = None
) -> Iterator[VideoFrame]:
    """Yield the sound frames in display order, past damaged places.

    Where a frame cannot be decoded, had to be guessed or has another size than the first one, frames are left
    out up to the next sound key frame: from there on nothing is built on the damage.

    Args:
        losses: grows by each such place.
    """
    losses = [] if losses is None else losses
    size, count, waiting = None, 0, False
    shown: deque[list[int]] = deque(maxlen=32)  # places of the latest frames in the order of decoding
    for frame in _frames(container, stream):
        reason = frame if isinstance(frame, str) else _fault(frame, size, count)
        if isinstance(frame, VideoFrame) and not reason:
            if waiting and not frame.key_frame:
                continue
            if len(losses) > _MAX_LOSSES:
                return
            size, waiting = size or (frame.width, frame.height), False
            yield frame
            count += 1
            shown.append(_place(frame))
        elif not waiting:
            spoiled = count
            if isinstance(frame, VideoFrame) and _place(frame):
                # What is shown before the damaged frame but was decoded after it may refer to it.
                spoiled -= len(list(takewhile(_place(frame).__lt__, reversed(shown))))
            losses.append(Loss(spoiled, count, reason))
            waiting = True


def _frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame | str]:
    """Every frame that comes out of the decoder, and a reason for each failure to read or to decode."""
    stream.codec_context.copy_opaque = True
    packets, number, failures = container.demux(stream), 0, 0
    while failures <= _MAX_FAILURES:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            packet.opaque = [number]  # PyAV looks it up by identity, which small numbers share
            number += 1
            for frame in cast(list[VideoFrame], packet.decode()):
                failures = 0
                beat()
                yield frame
        except MemoryError:
            raise
        except IndexError:  # PyAV, behind the last packet of a file in which streams began on the way
            return
        except DECODE_ERRORS as error:
            failures += 1
            yield _message(error)
            packets = container.demux(stream)  # goes on behind the packet that failed


def _place(frame: VideoFrame) -> list[int]:
    """Number of a frame's packet, in a list that is empty if the decoder does not tell."""
    return cast(list[int], frame.opaque) or []


def _fault(frame: VideoFrame, size: tuple[int, int] | None, number: int) -> str:
    """What is wrong with a frame; empty if nothing is."""
    if frame.is_corrupt:
        return f"frame {number} is corrupt"
    if size and size != (frame.width, frame.height):
        return f"the frame size changes at frame {number}"
    return ""


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

    Colour matrix and range follow the frame's tags. Ten bits are rounded to eight; HDR is tone mapped, see
    `hdr.py`.

    Args:
        pixels: order of the channels, `rgb24` or `bgr24`.
    """
    width, height = size if turns % 2 == 0 else size[::-1]
    shrinks = width * height <= frame.width * frame.height
    # Area averaging does not alias. The other two flags make the colours exact: without them swscale's result
    # is up to two levels too dark.
    how = (Interpolation.AREA if shrinks else Interpolation.BICUBIC) | _EXACT
    if frame.color_trc in (PQ, HLG):
        scaled = frame.reformat(
            width=width,
            height=height,
            format="yuv444p16le",
            dst_colorspace=Colorspace.BT2020,
            dst_color_range=ColorRange.MPEG,
            interpolation=how,
            threads=1,
        )
        image = to_sdr(scaled.to_ndarray(), frame.color_trc)[..., :: -1 if pixels == "bgr24" else 1]
    else:
        scaled = frame.reformat(width=width, height=height, format=pixels, interpolation=how, threads=1)
        image = scaled.to_ndarray()
    return np.ascontiguousarray(np.rot90(image, turns))


def short_side(size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """`size` = (width, height) scaled to a short side of `pixels`, both sides rounded to even numbers."""
    scale = pixels / min(size)
    width, height = (max(2, round(side * scale / 2) * 2) for side in size)
    return width, height


def _not_a_video(path: str, error: BaseException) -> str:
    try:
        with open(path, "rb") as file:
            head = file.read(64).lstrip().lower()
    except OSError as gone:
        return f"cannot be read: {gone.strerror}"
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
