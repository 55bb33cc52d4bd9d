"""The sound of the input, put beside the new pictures: copied where the container can hold it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.bitstream import BitStreamFilterContext
from av.container import OutputContainer
from av.filter import Graph
from av.packet import Packet

from live2diff.video import DECODE_ERRORS, open_container, reason

# What players play from an MP4. Matroska takes whatever libav says it takes.
_IN_MP4 = {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"}
# Channel counts that become AAC as they are; others are mixed to stereo.
_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


class Sound:
    """The default audio stream of a file, from its first picture's time to that of the last one written.

    Packets are read when the pictures have come to them, from the file opened a second time: memory stays the
    same however long the video is and however its streams are interleaved.

    Args:
        path: the input.
        begin: time in it that becomes 0, seconds.
        output: an MP4 or Matroska open for writing; gets the audio stream.

    Attributes:
        how: what becomes of it, for a person: "copied", "re-encoded ..."; None without sound.
    """

    how: str | None = None

    def __init__(self, path: Path, begin: Fraction, output: OutputContainer):
        self._begin, self._output = begin, output
        self._next: Packet | None = None
        self._input = open_container(path)
        stream = self._input.streams.best("audio")
        if stream is None or stream.codec_context is None:
            return
        try:
            self._packets = self._connect(cast(AudioStream, stream))
            self._next = next(self._packets, None)
        except DECODE_ERRORS as error:
            self.how = f"left out ({reason(error)})"

    def write_until(self, time: Fraction) -> None:
        """Write what begins before `time`, seconds."""
        while (packet := self._next) is not None and (packet.pts or 0) * packet.time_base < time:
            with suppress(av.ArgumentError, av.InvalidDataError):  # what the container refuses is a hole
                self._output.mux(packet)
            self._next = next(self._packets, None)

    def close(self) -> None:
        self._input.close()

    def _connect(self, stream: AudioStream) -> Iterator[Packet]:
        codec, mp4 = stream.codec_context.codec.canonical_name, self._output.format.name == "mp4"
        if codec in (_IN_MP4 if mp4 else self._output.supported_codecs):
            self.how = "copied"
            return self._copied(stream, self._output.add_stream_from_template(stream))
        where = ".mp4 (.mkv keeps it)" if mp4 else ".mkv"
        self.how = f"re-encoded to AAC: {codec} does not go into an {where}"
        rate = stream.rate if stream.rate in (av.Codec("aac", "w").audio_rates or ()) else 48_000
        encoder = self._output.add_stream("aac", rate=rate)
        encoder.layout = _LAYOUTS.get(stream.channels, "stereo")
        encoder.bit_rate = 96_000 * encoder.channels
        return self._encoded(stream, encoder)

    def _copied(self, stream: AudioStream, target: AudioStream) -> Iterator[Packet]:
        begin, last = self._ticks(stream), None
        for packet in self._plain(stream):
            time = packet.dts if packet.pts is None else packet.pts
            # A packet that ends where the picture begins stays: the decoder needs it for the next.
            if time is None or time + (packet.duration or 0) < begin or (last is not None and time <= last):
                continue
            last = time
            packet.pts = packet.dts = time - begin
            packet.stream = target
            yield packet

    def _plain(self, stream: AudioStream) -> Iterator[Packet]:
        """Packets without the headers that AAC has in MPEG-TS: MP4 does not take them."""
        if stream.codec_context.codec.canonical_name != "aac" or stream.codec_context.extradata:
            yield from self._read(stream)
            return
        strip = BitStreamFilterContext("aac_adtstoasc", stream)
        for packet in self._read(stream):
            if packet.size:
                yield from strip.filter(packet)

    def _encoded(self, stream: AudioStream, encoder: AudioStream) -> Iterator[Packet]:
        rate, layout, begin = encoder.rate, encoder.layout.name, self._ticks(stream)
        graph = Graph()
        graph.link_nodes(
            graph.add_abuffer(template=stream),
            graph.add("aformat", f"sample_fmts=fltp:sample_rates={rate}:channel_layouts={layout}"),
            # Holes become silence and overlaps are cut, so that counting samples keeps time.
            graph.add("aresample", "async=1:min_hard_comp=0.02"),
            graph.add("atrim", "start=0"),
            graph.add("abuffersink"),
        ).configure()
        for frame in self._decoded(stream):
            frame.pts = (frame.pts or 0) - begin
            graph.push(frame)
            for even in _pulled(graph):
                yield from encoder.encode(even)
        graph.push(None)  # the end
        for even in _pulled(graph):
            yield from encoder.encode(even)
        yield from encoder.encode(None)

    def _decoded(self, stream: AudioStream) -> Iterator[AudioFrame]:
        for packet in self._read(stream):
            try:
                frames = packet.decode()
            except DECODE_ERRORS:
                continue  # a hole
            yield from (frame for frame in frames if frame.pts is not None)

    def _read(self, stream: AudioStream) -> Iterator[Packet]:
        try:
            yield from self._input.demux(stream)
        except DECODE_ERRORS:
            return  # damage: the pictures meet it too, and say so

    def _ticks(self, stream: AudioStream) -> int:
        return round(self._begin / Fraction(stream.time_base or 1))


def _pulled(graph: Graph) -> Iterator[AudioFrame]:
    """What the filters have ready."""
    while True:
        try:
            yield cast(AudioFrame, graph.pull())
        except (av.BlockingIOError, av.EOFError):
            return
