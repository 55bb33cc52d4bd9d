"""Where frames come from: a video file or a camera. Each frame comes with the time it is to be shown at."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np

from live2diff.colour import ToRGB
from live2diff.errors import Live2DiffError, SetupError, UsageError
from live2diff.video import DECODE_ERRORS, open_video, reason

CAMERA = "camera:"
# A step back in time further than this is a new recording joined on; less is jitter. Seconds.
_JUMP = Fraction(1)
# A file whose pictures end before this share of the stated duration was cut short; headers err by less.
_WHOLE = Fraction(9, 10)


@dataclass(frozen=True)
class Moment:
    """When a frame is shown: `time` seconds after the first one, for `duration` seconds if none follows."""

    time: Fraction
    duration: Fraction

    @property
    def end(self) -> Fraction:
        return self.time + self.duration


@dataclass(frozen=True)
class Frame:
    """One picture, uint8 RGB (H, W, 3), upright, and its moment."""

    picture: np.ndarray
    moment: Moment


class Source:
    """Frames in the order they are shown; iterate once. Close it, or use it as a context manager.

    Attributes:
        name: what to call it in messages.
        path: the file, for its sound; None for a camera.
        fps: average frame rate, frames per second.
        time_base: seconds; every time is a multiple of it.
        frames: frame count the container states; 0 when unknown. A hint, often wrong.
        aspect: width of a pixel over its height, of the upright picture.
        begin: time in the file of the first frame, seconds.
        damage: after the last frame, the error that says why there are no more, if there should be.
        concealed: frames so far that the decoder had to mend.
    """

    path: Path | None = None
    frames = 0
    aspect = Fraction(1)
    begin = Fraction(0)
    damage: Live2DiffError | None = None
    concealed = 0

    def __init__(self, name: str, fps: Fraction, time_base: Fraction):
        self.name, self.fps, self.time_base = name, fps, time_base
        self._closing = ExitStack()

    def __iter__(self) -> Iterator[Frame]:
        raise NotImplementedError

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()


def open_source(name: str) -> Source:
    """The file called `name`, or camera N for `camera:N`.

    Raises:
        UsageError: no such file, or not one frame of it decodes.
        SetupError: no such camera.
    """
    return CameraSource(name) if name.startswith(CAMERA) else FileSource(name)


class FileSource(Source):
    """The best video stream of a file, one frame ahead: a file without any is refused at once.

    At damage that the decoder cannot bridge the iteration ends, and `damage` says why.
    """

    def __init__(self, path: str | Path):
        path = Path(path)
        container, stream = open_video(path)
        super().__init__(str(path), _rate(stream), Fraction(stream.time_base or Fraction(1, 90_000)))
        self._closing.callback(container.close)
        self.path, self.frames = path, stream.frames
        self._to_rgb = ToRGB()
        try:
            self._decoded = cast(Iterator[av.VideoFrame], container.decode(stream))
            first = next(self._decoded, None)
            if first is None:
                raise UsageError(f"{path}: holds no frame that decodes")
        except DECODE_ERRORS as error:
            self._closing.close()
            raise UsageError(f"{path}: cannot be read as a video ({reason(error)})") from error
        self._first = first
        self._stated = (stream.duration or 0) * self.time_base
        self.begin = (first.pts or 0) * self.time_base
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        aspect = aspect if Fraction(1, 4) <= aspect <= 4 else Fraction(1)  # headers lie
        self.aspect = 1 / aspect if _turns(first) % 2 else aspect

    def __iter__(self) -> Iterator[Frame]:
        clock = Clock(1 / self.fps, self.time_base)
        count, end = 0, Fraction(0)
        try:
            for frame in itertools.chain([self._first], self._decoded):
                self.concealed += frame.is_corrupt
                now = clock(None if frame.pts is None else frame.pts * self.time_base - self.begin)
                moment = Moment(now, frame.duration * self.time_base or 1 / self.fps)
                yield Frame(np.rot90(self._to_rgb(frame), _turns(frame)), moment)
                count, end = count + 1, moment.end
        except DECODE_ERRORS as error:
            self.damage = UsageError(f"{self.path}: damaged after frame {count} ({reason(error)})")
        else:
            if end < self._stated * _WHOLE:
                ends, stated = float(end), float(self._stated)
                self.damage = UsageError(
                    f"{self.path}: is cut short; its pictures end after {ends:.2f} s of {stated:.2f} s"
                )


class CameraSource(Source):
    """`camera:N` through OpenCV. A frame's time is when it was read; what comes meanwhile is dropped."""

    def __init__(self, name: str):
        number = name.removeprefix(CAMERA)
        if not (number.isascii() and number.isdigit()):
            raise UsageError(f"--input {name}: expected camera:N with a number, like camera:0")
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its reasons are several lines
        camera = cv2.VideoCapture(int(number))
        if not camera.isOpened():
            camera.release()
            raise SetupError(f"{name}: no such camera, or another program uses it; name another, or a file")
        camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not one that waited
        stated = camera.get(cv2.CAP_PROP_FPS)
        fps = Fraction(stated if 1 <= stated <= 240 else 30).limit_denominator(1001)
        super().__init__(name, fps, Fraction(1, 90_000))
        self._camera = camera
        self._closing.callback(camera.release)

    def __iter__(self) -> Iterator[Frame]:
        clock, start = Clock(1 / self.fps, self.time_base), None
        while True:
            there, picture = self._camera.read()
            if not there:
                self.damage = SetupError(f"{self.name}: delivers no more frames; is it still connected?")
                return
            start = time.monotonic() if start is None else start
            now = clock(_multiple(Fraction(time.monotonic() - start), self.time_base))
            yield Frame(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), Moment(now, 1 / self.fps))


class Clock:
    """Makes stated times rise: what a player would show when, whatever the file says.

    A missing time is one frame after the last. A small step back becomes the smallest step forward; after a
    jump back the clock goes on where it was.

    Args:
        interval: seconds between frames.
        tick: the smallest step, seconds.
    """

    def __init__(self, interval: Fraction, tick: Fraction):
        self._interval = max(_multiple(interval, tick), tick)
        self._tick = tick
        self._shift = Fraction(0)
        self._last: Fraction | None = None

    def __call__(self, stated: Fraction | None) -> Fraction:
        if self._last is None:
            now = stated or Fraction(0)
        elif stated is None:
            now = self._last + self._interval
        else:
            if stated + self._shift < self._last - _JUMP:
                self._shift = self._last + self._interval - stated
            now = max(stated + self._shift, self._last + self._tick)
        self._last = now
        return now


def _multiple(seconds: Fraction, tick: Fraction) -> Fraction:
    return round(seconds / tick) * tick


def _rate(stream: av.VideoStream) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and Fraction(1, 10) <= rate <= 240:
            return Fraction(rate).limit_denominator(100_000)
    return Fraction(25)


def _turns(frame: av.VideoFrame) -> int:
    """Quarter turns, counter-clockwise, that make the frame upright."""
    return round(frame.rotation / 90) % 4
