"""What `--output` can be, and the sink for each: a video file, a folder of pictures, a pipe."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from live2diff.errors import UsageError
from live2diff.stream.sink import FolderSink, PipeSink, Sink, is_ours
from live2diff.stream.source import Source
from live2diff.stream.video_file import CONTAINERS, video_file

PIPE = "-"


def check_output(output: str, input: str, overwrite: bool) -> None:
    """Refuse at once what cannot become an output, before anything slow begins.

    Raises:
        UsageError: an unknown kind of file, a name that is taken, the input itself, a terminal.
    """
    path = Path(output)
    if output == PIPE:
        if os.isatty(1):
            raise UsageError("--output -: would fill this terminal with raw video; add `| ffplay -`")
    elif path.exists() and Path(input).exists() and path.samefile(input):
        raise UsageError(f"--output {output}: is the input; choose another name")
    elif _is_folder(output):
        found = sorted(path.iterdir()) if path.exists() else []
        if found and not overwrite:
            raise UsageError(f"{output}: is not empty; choose another folder or add --overwrite")
        for foreign in [item for item in found if not is_ours(item)]:
            raise UsageError(f"{foreign}: is no picture of an earlier run; choose a folder without it")
    elif path.suffix.lower() not in CONTAINERS:
        raise UsageError(f"{output}: must be named .mp4 or .mkv, or be a folder, or - for a pipe")
    elif path.exists() and not overwrite:
        raise UsageError(f"{output}: exists already; choose another name or add --overwrite")


@contextmanager
def open_sink(output: str, source: Source, size: tuple[int, int]) -> Iterator[Sink]:
    """A sink for frames of `size` = (width, height), at the times and with the sound of `source`.

    Run `check_output` before. What was written is kept, and plays, also when the block raises.

    Raises:
        SetupError: the disk is full or fails.
    """
    if output == PIPE:
        yield PipeSink(source, size)
    elif _is_folder(output):
        yield FolderSink(output, source)
    else:
        with video_file(output, source, size) as sink:
            yield sink


def _is_folder(output: str) -> bool:
    """A folder that exists, or a name for one: it ends in / or has no suffix."""
    path = Path(output)
    return path.is_dir() or (not path.exists() and (output.endswith("/") or not path.suffix))
