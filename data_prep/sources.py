"""What the arguments of a build mean: a sorted list of video files, each with its caption."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from live2diff.errors import UsageError

# What is picked up from a folder. A file named on its own is taken whatever its suffix.
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        "3g2 3gp asf avi f4v flv gif m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv"
    ).split()
)
_CAPTION_CHARS = 10_000  # a caption is a sentence; a side-car file of gigabytes is not read


@dataclass(frozen=True)
class Source:
    """One input file.

    Attributes:
        path: absolute path, as the system spells it.
        uri: name in the dataset: relative to the folder above the given sources, "/" between the parts.
        split_name: name relative to the given source itself; the split is drawn from it, so that moving a
            folder moves no clip between `train` and `val`.
    """

    path: str
    uri: str
    split_name: str

    def caption(self) -> str:
        """Text of the side-car `.txt` beside the video; empty without one."""
        side_car = Path(self.path).with_suffix(".txt")
        if not side_car.is_file():
            return ""
        with open(side_car, encoding="utf-8", errors="replace") as file:
            return file.read(_CAPTION_CHARS).strip()


def list_sources(arguments: Sequence[str]) -> list[Source]:
    """All videos under `arguments` (folders, searched recursively, and files), sorted by name, each once.

    Hidden files and folders are passed over, and links to folders are not followed.

    Raises:
        UsageError: an argument that does not exist, or no video file in any of them.
    """
    roots = [os.path.abspath(argument) for argument in arguments]
    if not roots:
        raise UsageError("no source given; name at least one folder of videos or one video")
    for argument, root in zip(arguments, roots, strict=True):
        if not os.path.exists(root):
            raise UsageError(f"{argument}: no such file or folder")
    above = os.path.commonpath([os.path.dirname(root) for root in roots])
    found: dict[str, Source] = {}
    for root in roots:
        for path in _files(root):
            start = root if path != root else os.path.dirname(root)
            found.setdefault(path, Source(path, _name(path, above), _name(path, start)))
    if not found:
        raise UsageError(f"{', '.join(arguments)}: holds no video file ({' '.join(sorted(SUFFIXES))})")
    return sorted(found.values(), key=lambda source: (source.uri, source.path))


def _files(root: str) -> Iterator[str]:
    if not os.path.isdir(root):
        yield root
        return
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.path.join(folder, name)


def _name(path: str, start: str) -> str:
    # A file name is bytes on Linux; what is not UTF-8 could not be written into JSON.
    return os.fsencode(os.path.relpath(path, start)).decode("utf-8", "replace").replace(os.sep, "/")
