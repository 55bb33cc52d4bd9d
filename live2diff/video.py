"""Video files in and out, through PyAV. Frames are uint8 RGB arrays (H, W, 3), upright, in display order.

Decoding here happens in the calling process: use it for clips this project wrote itself and for a file a
person names. Folders of unknown files go through `data_prep`, which decodes in a child that may die.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import cast

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream

from live2diff.errors import UsageError
from live2diff.files import staged_file

# What libav raises for files it cannot read; PyAV 18 also fails to decode some 3GP metadata as UTF-8.
DECODE_ERRORS = (av.FFmpegError, OSError, UnicodeDecodeError, ValueError)

_BT709 = 1  # its number in ISO/IEC 23091-2, as matrix, primaries and transfer function


def open_video(path: Path) -> tuple[InputContainer, VideoStream]:
    """The file's container and its best video stream, decoding on all cores. The caller closes the container.

    Raises:
        UsageError: not a file, not a video, or one without pictures.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such video file")
    if not path.is_file():
        raise UsageError(f"{path}: is not a file; name one video")
    try:
        container = open_container(path)
    except DECODE_ERRORS as error:
        raise UsageError(f"{path}: cannot be read as a video ({reason(error)})") from error
    stream = container.streams.best("video")
    if stream is None:
        container.close()
        raise UsageError(f"{path}: holds no video stream (audio only?)")
    stream.thread_type = "AUTO"
    return container, cast(VideoStream, stream)


def open_container(path: Path) -> InputContainer:
    """Open the file itself and no other: a playlist must not make libav open files or the network."""
    # Absolute, because libav takes a relative name such as "a:b.mp4" for an address.
    return av.open(os.path.abspath(path), options={"protocol_whitelist": "file"}, metadata_errors="replace")


class VideoReader:
    """One video stream of one file.

    Iterate once: it yields upright frames. At damage it raises `UsageError` with the number of frames that
    decoded, after those frames have been yielded.

    Attributes:
        fps: average frame rate, frames per second.
        size: (width, height) of the upright frames, pixels.
        frames: frame count the container states; 0 when it does not say. A hint, often wrong.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._container, self._stream = open_video(self.path)
        try:
            self._decoded = cast(Iterator[av.VideoFrame], self._container.decode(self._stream))
            first = next(self._decoded, None)
        except DECODE_ERRORS as error:
            raise UsageError(f"{self.path}: cannot be read as a video ({reason(error)})") from error
        if first is None:
            raise UsageError(f"{self.path}: holds no frame that decodes")
        self._first = first
        rate = self._stream.average_rate or self._stream.guessed_rate or Fraction(25)
        self.fps = Fraction(rate).limit_denominator(100_000)
        self.frames = self._stream.frames
        height, width = _upright(self._first).shape[:2]
        self.size = (width, height)

    def __iter__(self) -> Iterator[np.ndarray]:
        count = 0
        try:
            for frame in itertools.chain([self._first], self._decoded):
                yield _upright(frame)
                count += 1
        except DECODE_ERRORS as error:
            raise UsageError(f"{self.path}: damaged after frame {count} ({reason(error)})") from error

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class VideoWriter:
    """Writes an H.264 / yuv420p MP4 at a constant frame rate, staged: its name appears when it is whole.

    Colours are BT.709 in narrow range, and tagged so: players and readers need not guess.

    Use as a context manager. Odd sizes are cropped by one pixel, which 4:2:0 chroma needs.

    Args:
        path: target file; its folder is made.
        fps: frames per second.
        size: (width, height) in pixels.
        crf: x264 quality, lower is better; 0 is lossless.
        gop: longest distance between key frames; short ones make random access cheap.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        fps: Fraction | float,
        size: tuple[int, int],
        *,
        crf: int = 17,
        gop: int = 16,
    ):
        self.path = Path(path)
        self.size = (size[0] // 2 * 2, size[1] // 2 * 2)
        if min(self.size) < 2:
            raise UsageError(f"{self.path}: a frame of {size[0]}x{size[1]} pixels is too small for a video")
        self._stack = ExitStack()
        try:
            self._open(Fraction(fps).limit_denominator(100_000), crf, gop)
        except BaseException:
            self._stack.__exit__(*sys.exc_info())
            raise

    def _open(self, fps: Fraction, crf: int, gop: int) -> None:
        stage = self._stack.enter_context(staged_file(self.path))
        self._container = av.open(str(stage), "w", format="mp4", options={"movflags": "+faststart"})
        self._stack.callback(self._container.close)
        # One encoder thread: x264's output then does not depend on the machine's core count.
        stream = self._container.add_stream("libx264", rate=fps)
        stream.width, stream.height = self.size
        stream.pix_fmt = "yuv420p"
        for tag in ("colorspace", "color_primaries", "color_trc"):
            setattr(stream.codec_context, tag, _BT709)
        stream.codec_context.color_range = ColorRange.MPEG
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        # Without mbtree, whose vector code reads memory that was never written: with it, a clip in a hundred
        # of small frames came out in other bytes than the last time.
        stream.options = {"crf": str(crf), "preset": "veryfast", "bf": "0", "mbtree": "0"}
        self._stream = stream

    def write(self, frame: np.ndarray) -> None:
        """Append one uint8 RGB frame (H, W, 3)."""
        width, height = self.size
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
        coded = picture.reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.BILINEAR | Interpolation.ACCURATE_RND,
            threads=1,
        )
        self._container.mux(self._stream.encode(coded))

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:  # closes the container, then names the file or removes it
            if error is not None:
                raise error
            self._container.mux(self._stream.encode(None))


def write_video(
    path: str | os.PathLike,
    frames: Iterator[np.ndarray] | list[np.ndarray] | np.ndarray,
    fps: Fraction | float,
    **options: int,
) -> None:
    """Write all `frames` (each uint8 RGB (H, W, 3)) to `path`; see `VideoWriter` for `options`."""
    iterator = iter(frames)
    first = next(iterator)
    with VideoWriter(path, fps, (first.shape[1], first.shape[0]), **options) as writer:
        writer.write(first)
        for frame in iterator:
            writer.write(frame)


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """uint8 RGB with the display rotation (a multiple of 90 degrees, counter-clockwise) applied."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90) % 4)


def reason(error: BaseException) -> str:
    """Why libav or the system failed, as one short line."""
    return str(getattr(error, "strerror", None) or error).strip().splitlines()[0]
