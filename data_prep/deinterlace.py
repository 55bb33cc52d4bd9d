"""Interlaced frames to whole ones: libav's bwdif, which leaves frames that are not flagged as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from av.filter import Graph
from av.video.frame import VideoFrame


def deinterlace(frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
    """As many frames as came in, each built from its first field and those around it."""
    graph = None
    for frame in frames:
        if graph is None:
            graph = _graph(frame)
        graph.vpush(frame)
        yield from _ready(graph)
    if graph is not None:
        graph.vpush(None)
        yield from _ready(graph)


def _graph(frame: VideoFrame) -> Graph:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    # send_frame: one frame per frame (not per field), so that frame numbers keep their meaning.
    filters = graph.add("bwdif", "mode=send_frame:parity=auto:deint=interlaced")
    graph.link_nodes(source, filters, graph.add("buffersink")).configure()
    return graph


def _ready(graph: Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (BlockingIOError, EOFError):  # it wants more frames, or has given all
            return
