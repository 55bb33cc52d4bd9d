"""Where finished frames go: what all kinds share, a folder of pictures, a pipe; `video_file` has the rest."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import cv2

from live2diff.colour import ToYUV, guessed_matrix
from live2diff.errors import SetupError
from live2diff.files import staged_file
from live2diff.stream.source import Frame, Source

_TIMES = "times.txt"
# What a folder of pictures holds, with what a killed process leaves.
_OURS = re.compile(r"(\.staged-[0-9a-f]{8}-)?\d{6,}\.png|times\.txt")


class Sink:
    """Takes finished frames in order.

    Attributes:
        name: what to call it in messages.
        count: frames written so far.
        end: time at which the last of them ends, seconds.
        about: what else a person should know of the result, such as its sound; "" for nothing.
    """

    about = ""

    def __init__(self, name: str):
        self.name, self.count, self.end = name, 0, Fraction(0)

    def write(self, frame: Frame) -> None:
        """Append a frame; its picture has the sink's size.

        Raises:
            SetupError: the disk is full or fails.
        """
        try:
            self._put(frame)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._failed(error) from error
        self.count, self.end = self.count + 1, frame.moment.end

    def _put(self, frame: Frame) -> None:
        raise NotImplementedError

    def _failed(self, error: OSError) -> SetupError:
        return SetupError(
            f"{self.name}: cannot be written ({error.strerror}); make room or choose another place"
        )


class NoSink(Sink):
    """Keeps nothing: for frames that are only looked at."""

    about = "kept nowhere"

    def __init__(self) -> None:
        super().__init__("no output")

    def _put(self, frame: Frame) -> None:
        pass


def is_ours(path: Path) -> bool:
    """Whether a `FolderSink` wrote the file, by its name."""
    return bool(_OURS.fullmatch(path.name))


class FolderSink(Sink):
    """Numbered PNGs, each whole or absent, and `times.txt`, which says when each is shown.

    The times are milliseconds in the form that mkvmerge reads ("timestamp format v2"). An earlier run's
    pictures in the folder are removed.
    """

    def __init__(self, folder: str, source: Source):
        super().__init__(folder)
        self._folder = Path(folder)
        self._times = self._folder / _TIMES
        self.about = f"numbered pictures, {float(source.fps):g} per second"

    def _begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for old in filter(is_ours, self._folder.iterdir()):
            old.unlink()
        self._times.write_text("# timestamp format v2\n")

    def _put(self, frame: Frame) -> None:
        if self.count == 0:
            self._begin()
        _, png = cv2.imencode(".png", cv2.cvtColor(frame.picture, cv2.COLOR_RGB2BGR))
        with staged_file(self._folder / f"{self.count:06}.png") as stage:
            stage.write_bytes(png.tobytes())
        with open(self._times, "a") as times:
            times.write(f"{float(frame.moment.time * 1000):.3f}\n")


class PipeSink(Sink):
    """YUV4MPEG2 on standard output, which ffmpeg, ffplay and mpv read from a pipe.

    It knows one rate and no colour tags: frames come at the source's average rate, in the colours players
    assume for their size.
    """

    about = "raw video at one rate, without sound"

    def __init__(self, source: Source, size: tuple[int, int]):
        super().__init__("standard output")
        width, height = size
        self._to_yuv = ToYUV(guessed_matrix(width, height))
        self._header = (
            f"YUV4MPEG2 W{width} H{height} F{source.fps.numerator}:{source.fps.denominator} "
            "Ip A1:1 C420mpeg2 XCOLORRANGE=LIMITED\n"
        ).encode()
        # Not sys.stdout: its buffer would be flushed once more, into a pipe that may be closed, at exit.
        self._pipe = open(1, "wb", buffering=0, closefd=False)

    def _put(self, frame: Frame) -> None:
        header = b"" if self.count else self._header
        data = memoryview(header + b"FRAME\n" + self._to_yuv(frame.picture).to_ndarray().tobytes())
        while data:  # an unbuffered pipe takes what it has room for
            data = data[self._pipe.write(data) :]
