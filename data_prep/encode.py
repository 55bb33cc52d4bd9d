"""Write the planned clips of one source as H.264 files, decoding the source once more, forwards only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.clips import Clip
from data_prep.clock import Clock
from data_prep.decode import RejectedError, decode, open_video, picture
from data_prep.deinterlace import deinterlace
from data_prep.filters import Scores
from live2diff.video import VideoWriter


def encode_clips(
    path: str,
    clips: Sequence[Clip],
    folder: Path,
    *,
    fps: Fraction,
    size: tuple[int, int],
    turns: int,
    interlaced: bool,
    crf: int,
    clock: Clock,
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Write each clip to `folder` as H.264 yuv420p at `fps` and `size` = (width, height).

    Clips must be in the order of their frames. One frame is held at a time, so memory does not grow with the
    length of a shot.

    Yields:
        The file of each clip and its scores (see `Scores.values`), as soon as it is whole.

    Raises:
        RejectedError: the frames that were there before are not there now.
    """
    wanted = chain.from_iterable(clip.frames for clip in clips)
    pictures = _pictures(path, wanted, size, turns, interlaced)
    for clip in clips:
        file = folder / f"{clip.shot:04d}_{clip.number:03d}.mp4"
        scores = Scores(len(clip.frames), float(fps))
        see = clock.timed("filters", scores.see)
        with VideoWriter(file, fps, size, crf=crf) as writer:
            for image in islice(pictures, len(clip.frames)):
                writer.write(image)
                see(image)
        yield file, scores.values()


def _pictures(
    path: str, wanted: Iterable[int], size: tuple[int, int], turns: int, interlaced: bool
) -> Iterator[np.ndarray]:
    """The frames with the indices `wanted`, which never fall; a repeated index repeats the picture."""
    with open_video(path) as (container, stream):
        decoded = decode(container, stream)
        frames = enumerate(deinterlace(decoded) if interlaced else decoded)
        number, image = -1, np.empty(0, np.uint8)
        for index in wanted:
            while number < index:
                number, frame = next(frames, (index, None))
                if frame is None:
                    raise RejectedError(f"decodes differently each time: frame {index} is missing")
                if number == index:
                    image = picture(frame, size, turns)
            yield image
