"""Videos to be measured, whatever holds them, by name and address.

    a folder of videos        every video in it, at any depth; its name is the path without the suffix
    a folder of pictures      one video (DAVIS keeps 00000.jpg, 00001.jpg, ...); the name is the folder's path
    a live2diff dataset       the clips of one split; the names are their keys
    a WebDataset tar          the same of one file

An address is a file, a folder of pictures, or `TAR#KEY` for a clip in a tar.
"""

from __future__ import annotations

import os
import re
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from live2diff.errors import DataError, UsageError
from live2diff.stream.source import FileSource, Frame, Moment, Source
from live2diff.tars import entries, open_tar
from live2diff.video import open_video

VIDEOS = frozenset(".mp4 .mov .mkv .webm .avi .m4v .gif .3gp .ts .mpg .mpeg .ogv .wmv .flv".split())
PICTURES = frozenset(".jpg .jpeg .png .bmp .webp".split())
PICTURES_FPS = 24  # DAVIS's; a folder of pictures does not say

_LARGEST = {"mp4": 1 << 30, "txt": 1 << 20}  # bytes of a member that are read


@dataclass(frozen=True)
class Clip:
    """A video that was found. `caption` is what lies beside it: NAME.txt, or the text of its key in a tar."""

    name: str
    address: str
    caption: str | None = None


def printable(text: str) -> str:
    """A name or reason as one line for a terminal: names may come from anyone's tar."""
    return text if text.isprintable() else ascii(text)[1:-1]


def find_clips(place: str | Path, split: str = "val") -> list[Clip]:
    """Every video at `place`, ordered by name. Nothing is opened but the headers of tars.

    Args:
        split: which of a dataset.

    Raises:
        UsageError: no such place, or none in it.
        DataError: a tar that cannot be read.
    """
    place = Path(place)
    if place.is_file() and place.suffix == ".tar":
        found = list(_in_tar(place))
    elif not place.is_dir():
        what = "is no folder, dataset or .tar" if place.exists() else "no such folder"
        raise UsageError(f"{place}: {what}; name the folder that holds the videos")
    elif (place / "dataset.json").is_file():
        tars = sorted((place / split).glob("clips-*.tar"))
        found = [clip for tar in tars for clip in _in_tar(tar)]
        if not found:
            splits = [name for name in ("train", "val") if any((place / name).glob("clips-*.tar"))]
            raise UsageError(f"{place}: no clips in split={split}; there is {' and '.join(splits) or 'none'}")
    else:
        found = list(_in_folder(place))
    if not found:
        raise UsageError(f"{place}: holds neither videos nor folders of pictures")
    return sorted(found, key=lambda clip: clip.name)


def open_clip(address: str) -> Source:
    """The frames of a clip, upright, uint8 RGB, one at a time; use it as a context manager.

    Raises:
        UsageError, DataError: it is not there, or not one frame of it can be read.
    """
    path, hash_, key = address.rpartition("#")
    if hash_ and path.endswith(".tar"):
        return _TarSource(Path(path), key)
    return PictureSource(address) if Path(address).is_dir() else FileSource(address)


class PictureSource(Source):
    """A folder of pictures of one size, in the order of the numbers in their names.

    Raises:
        UsageError: no pictures in it, or the first one cannot be read.
    """

    def __init__(self, folder: str | Path):
        super().__init__(str(folder), Fraction(PICTURES_FPS), Fraction(1, PICTURES_FPS))
        self._paths = _pictures(Path(folder))
        if not self._paths:
            raise UsageError(f"{folder}: holds no pictures")
        self.frames = len(self._paths)
        first = _read(self._paths[0])
        if first is None:
            raise UsageError(f"{self._paths[0]}: cannot be read as a picture")
        self._first = first

    def __iter__(self) -> Iterator[Frame]:
        interval = 1 / self.fps
        for number, path in enumerate(self._paths):
            picture = self._first if number == 0 else _read(path)
            if picture is None:
                self.damage = UsageError(f"{path}: cannot be read as a picture")
                return
            if picture.shape != self._first.shape:
                sizes = [f"{shape[1]}x{shape[0]}" for shape in (picture.shape, self._first.shape)]
                self.damage = UsageError(f"{path}: is {sizes[0]}, the pictures before it {sizes[1]}")
                return
            yield Frame(picture, Moment(number * interval, interval))


class _TarSource(FileSource):
    """A clip out of a tar, through a temporary file."""

    def __init__(self, tar: Path, key: str):
        data = _video_in(tar, key)
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:  # open files outlive their names
            file.write(data)
            file.flush()
            super().__init__(file.name)
        self.name, self.path = f"{tar}#{key}", None


def stored_as(address: str) -> str:
    """How the frames of a clip that opens are stored, such as h264, av1 or png."""
    if address.rpartition("#")[0].endswith(".tar"):
        return "h264"  # what a dataset's clips are
    if Path(address).is_dir():
        return _pictures(Path(address))[0].suffix.lower().lstrip(".")
    container, stream = open_video(Path(address))
    with container:
        return stream.codec_context.codec.canonical_name


def _in_folder(place: Path) -> Iterator[Clip]:
    for root, folders, files in os.walk(place):
        folder = Path(root)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names = [name for name in files if not name.startswith(".")]
        suffixes = {Path(name).suffix.lower() for name in names}
        if suffixes & PICTURES and not suffixes & VIDEOS and folder != place:
            yield Clip(folder.relative_to(place).as_posix(), str(folder), _beside(folder))
        for name in names:
            if Path(name).suffix.lower() in VIDEOS:
                path = folder / name
                yield Clip(path.relative_to(place).with_suffix("").as_posix(), str(path), _beside(path))


def _beside(path: Path) -> str | None:
    text = path.with_name(f"{path.stem if path.is_file() else path.name}.txt")
    if not text.is_file() or text.stat().st_size > _LARGEST["txt"]:
        return None
    return " ".join(text.read_text(encoding="utf-8", errors="replace").split())


def _pictures(folder: Path) -> list[Path]:
    paths = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES and path.name[0] != "."]
    return sorted(paths, key=lambda path: ([int(n) for n in re.findall(r"[0-9]+", path.stem)], path.name))


def _read(path: Path) -> np.ndarray | None:
    try:
        picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None
    return None if picture is None else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _in_tar(path: Path) -> Iterator[Clip]:
    videos, texts = [], {}
    for key, kind, entry in _members(path):
        if kind == "mp4":
            videos.append(key)
        elif kind == "txt":
            texts[key] = entry
    for key in videos:
        text = _bytes(path, key, "txt", texts[key]).decode(errors="replace") if key in texts else None
        yield Clip(key, f"{path}#{key}", None if text is None else " ".join(text.split()))


def _video_in(path: Path, key: str) -> bytes:
    for name, kind, entry in _members(path):
        if (name, kind) == (key, "mp4"):
            return _bytes(path, key, kind, entry)
    raise DataError(f"{path}: holds no {key}.mp4")


def _bytes(path: Path, key: str, kind: str, entry: tarfile.TarInfo) -> bytes:
    if entry.size > _LARGEST[kind]:
        raise DataError(f"{path}: {key}: its .{kind} states {entry.size} bytes")
    with open(path, "rb") as file:
        file.seek(entry.offset_data)
        return file.read(entry.size)


def _members(path: Path) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """Key, kind and header of every member that is a plain file."""
    try:
        with open(path, "rb") as file, open_tar(file) as tar:
            for entry in entries(tar):
                key, _, kind = entry.name.partition(".")  # at the first dot, as WebDataset does
                if entry.isreg() and entry.sparse is None and key:
                    yield key, kind, entry
    except (OSError, tarfile.TarError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read as a tar ({error})") from error
