"""The loop of a stream: frames from a source, changes at their time, finished frames to a sink."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from live2diff.stream.engine import Stream
from live2diff.stream.fit import Fit, fit
from live2diff.stream.script import Change
from live2diff.stream.session import Recorder
from live2diff.stream.sink import Sink
from live2diff.stream.source import Frame, Source
from live2diff.stream.still import SkipStill
from live2diff.stream.stopping import Stop


def run(
    source: Source,
    stream: Stream | SkipStill,
    sink: Sink,
    how: Fit = "crop",
    stop: Stop | None = None,
    see: Callable[[np.ndarray, np.ndarray], None] = lambda before, after: None,
    changes: Callable[[int, Frame], Iterable[Change]] = lambda number, frame: (),
    recorder: Recorder | None = None,
) -> None:
    """Every frame of `source` through `stream` into `sink`, in order, shown when it was shown.

    If the source has fewer frames than the warm-up takes, its last one is held for the rest; as many come out
    as it has.

    Args:
        stop: when a signal came, ends between two frames; the frames in the pipeline are lost.
        see: called with every fitted input picture and what came of it, both uint8 RGB (H, W, 3).
        changes: what changes before frame `number`, whose picture is fitted.
        recorder: notes what goes in, what changes and what comes out.
    """
    waiting: deque[Frame] = deque()  # what is in the pipeline

    def write(pictures: Sequence[np.ndarray]) -> None:
        for picture in pictures:
            before = waiting.popleft()
            sink.write(Frame(picture, before.moment))
            if recorder is not None:
                recorder.out(picture)
            see(before.picture, picture)

    count = 0
    for frame in source:
        if stop is not None and stop.signal is not None:
            return
        frame = Frame(fit(frame.picture, stream.size, how, source.aspect), frame.moment)
        for change in changes(count, frame):
            if recorder is not None:
                recorder.change(change)
            write(change.apply(stream))
        if recorder is not None:
            recorder.frame(frame.picture, frame.moment)
        waiting.append(frame)
        write(stream.push(frame.picture))
        count += 1
    if count < stream.warmup:
        short = f"has {count} frames, the warm-up takes {stream.warmup}"
        print(f"warning: {source.name}: {short}; the last is held for it", file=sys.stderr)
    write(stream.flush())
