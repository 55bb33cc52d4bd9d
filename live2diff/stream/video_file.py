"""A video file with the source's times and sound, which plays whatever happens while it is written.

H.264 in MP4 or Matroska. An MP4 is written in fragments of about a second and becomes an ordinary one at its
end; only then the file gets its name. A killed process leaves it beside, under a name that begins with
`.staged-`, playable up to the last whole fragment.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc

from live2diff.colour import ToYUV
from live2diff.errors import Live2DiffError
from live2diff.files import staged_file
from live2diff.stream.sink import Sink
from live2diff.stream.sound import Sound
from live2diff.stream.source import Frame, Source
from live2diff.stream.stopping import uninterrupted
from live2diff.video import DECODE_ERRORS, open_container

CONTAINERS = {".mp4": "mp4", ".mkv": "matroska"}
# What is kept of a killed process: all but the fragment or cluster in work, of a second at most.
_OPTIONS = {
    "mp4": {"movflags": "+hybrid_fragmented+frag_keyframe+delay_moov", "flush_packets": "1"},
    "matroska": {"cluster_time_limit": "1000", "flush_packets": "1"},
}


@contextmanager
def video_file(output: str, source: Source, size: tuple[int, int]) -> Iterator[VideoFileSink]:
    """A sink whose file gets its name when the block ends, also by an error, with the frames it then has.

    Raises:
        SetupError: the disk is full or fails.
    """
    failed: BaseException | None = None
    with ExitStack() as naming:  # outlasts the staging: nothing may interrupt the naming either
        with suppress(_NothingWritten), staged_file(output) as stage:
            sink = VideoFileSink(output, stage, source, size)
            try:
                yield sink
            except BaseException as error:
                failed = error
            naming.enter_context(uninterrupted())
            try:
                sink.finish()
            except Live2DiffError as error:
                failed = failed or error
            if sink.count == 0:
                raise failed or _NothingWritten
    if failed is not None:
        raise failed


class _NothingWritten(Exception):
    """Not one frame came: there is no file to keep."""


class VideoFileSink(Sink):
    """Encodes frames of `size` into the file `stage`, which messages call `name`."""

    def __init__(self, name: str, stage: Path, source: Source, size: tuple[int, int]):
        super().__init__(name)
        self._stage = stage
        self._format = CONTAINERS[Path(name).suffix.lower()]
        self._container = av.open(str(stage), "w", format=self._format, options=_OPTIONS[self._format])
        # The source's own ticks keep its times exact; those of a nanosecond are finer than encoders like.
        fine = source.time_base.denominator > 1_000_000
        self._tick = Fraction(1, 90_000) if fine else source.time_base
        stream = self._container.add_stream("libx264", rate=source.fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = self._tick
        context.gop_size = max(1, round(source.fps))  # a second: quick to seek in, little to lose
        context.thread_count = 1  # x264's output then does not depend on the machine's core count
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709
        stream.options = {"crf": "17", "preset": "veryfast", "bf": "0"}
        self._stream = stream
        self._to_yuv = ToYUV()
        self._last = -1
        self._durations: deque[int] = deque()
        self._sound = Sound(source.path, source.begin, self._container) if source.path else None
        if self._sound and self._sound.how:
            self.about = f"sound {self._sound.how}"
        try:
            self._container.start_encoding()  # a place that cannot be written to shows before any work
        except OSError as error:
            raise self._failed(error) from error

    def _put(self, frame: Frame) -> None:
        picture = self._to_yuv(frame.picture)
        picture.pts = self._last = max(self._last + 1, round(frame.moment.time / self._tick))
        picture.time_base = self._tick
        self._durations.append(max(1, round(frame.moment.duration / self._tick)))
        self._mux(self._stream.encode(picture))
        if self._sound:
            self._sound.write_until(frame.moment.end)

    def _mux(self, packets: list[av.Packet]) -> None:
        for packet in packets:
            packet.duration = self._durations.popleft()  # without B-frames they come as the frames went in
            self._container.mux(packet)

    def finish(self) -> None:
        """End the file, so that it plays. With a full disk: cut it to what plays, adjust `count` and `end`.

        Raises:
            SetupError: the disk is full or fails.
        """
        try:
            if self.count:
                self._mux(self._stream.encode(None))
            self._container.close()
        except OSError as error:
            with suppress(OSError):  # closes it in any case
                self._container.close()
            if self._format == "mp4":
                _cut_to_whole_boxes(self._stage)
            self.count, self.end = _what_plays(self._stage)
            raise self._failed(error) from error
        finally:
            if self._sound:
                self._sound.close()


def _cut_to_whole_boxes(path: Path) -> None:
    """Drop what follows the last complete `mdat` of a fragmented MP4 (ISO/IEC 14496-12)."""
    size, at, whole = path.stat().st_size, 0, 0
    with open(path, "rb+") as file:
        while at + 8 <= size:
            file.seek(at)
            length, kind = struct.unpack(">I4s", file.read(8))
            if length == 1:  # a 64-bit length follows
                length = int.from_bytes(file.read(8), "big")
            if length < 8:
                break
            at += length
            if kind == b"mdat" and at <= size:
                whole = at
        file.truncate(whole)


def _what_plays(path: Path) -> tuple[int, Fraction]:
    """Number of pictures in a file, and where the last one ends, seconds; zeros if it cannot be read."""
    count, end = 0, Fraction(0)
    with suppress(*DECODE_ERRORS), open_container(path) as container:
        for packet in container.demux(video=0):
            if packet.size:
                count += 1
                end = ((packet.pts or 0) + (packet.duration or 0)) * packet.time_base
    return count, end
