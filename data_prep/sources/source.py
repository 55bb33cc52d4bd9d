"""One input: a local file, a member of a tar, or a file behind a URL; and how its bytes are got at."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.sources.places import is_url, open_place, reason, suffix_of

# What is picked up from a folder, a glob or a tar. A file named on its own is taken whatever its suffix.
SUFFIXES = frozenset(
    f".{name}"
    for name in (
        "3g2 3gp asf avi f4v flv gif m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv"
    ).split()
)
CAPTION_CHARS = 10_000  # a caption is a sentence; of a text of gigabytes no more is read
_ROW_KEYS = ("uri", "path", "offset", "bytes", "caption", "caption_source", "fault")
_CHUNK = 1 << 20
_TRIES = 3  # for what lies behind a URL


class SourceError(Exception):
    """The bytes of a source cannot be had; the message is the reason its input is rejected with."""


@dataclass(frozen=True, slots=True)
class Source:
    """One input file.

    Attributes:
        path: absolute path, as the system spells it, or URL: of the file, or of the tar that holds it.
        uri: name in the dataset: relative to the folder above the given sources, "/" between the parts; for
            what lies behind a URL the URL without its query and password.
        split_name: name relative to the given source itself; the split is drawn from it, so that moving a
            folder moves no clip between `train` and `val`.
        bytes: size; 0 for what is no regular file, None for what cannot be reached.
        offset: of the content, in a tar; None for a file of its own.
        caption, caption_source: what came with the list of inputs ("column", "tar"), or "" and "none".
        fault: why it is rejected unopened, or None.
    """

    path: str
    uri: str
    split_name: str
    bytes: int | None = 0
    offset: int | None = None
    caption: str = ""
    caption_source: str = "none"
    fault: str | None = None

    def row(self) -> dict[str, Any]:
        """The source in `worklist.jsonl`."""
        return {key: getattr(self, key) for key in _ROW_KEYS}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Source:
        """A source out of `worklist.jsonl`; its split is settled, so `split_name` is empty."""
        return cls(**{key: row[key] for key in _ROW_KEYS}, split_name="")

    def chunks(self) -> Iterator[bytes]:
        """The content, piece by piece. Raises `SourceError` when it cannot be read to its end."""
        left = self.bytes if self.offset is not None else None
        try:
            with open_place(self.path) as file:
                file.seek(self.offset or 0)
                while left is None or left > 0:
                    chunk = file.read(_CHUNK if left is None else min(_CHUNK, left))
                    if not chunk:
                        break
                    left = None if left is None else left - len(chunk)
                    yield chunk
        except Exception as error:  # a file system behind a URL may raise anything
            raise SourceError(f"cannot be read: {reason(error)}") from error
        if left:
            raise SourceError(f"cannot be read: the tar ends {left} bytes too early")

    def sha1(self) -> str:
        """Hex SHA-1 of the content (an identity, not a security measure). Raises `SourceError`."""
        digest = hashlib.sha1()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def fetch(self, folder: Path, max_bytes: int) -> tuple[str, str]:
        """Path of a local file with the content, the file itself or a copy in `folder`; and its hex SHA-1.

        Raises:
            SourceError: it is gone, no regular file, changed since it was listed, or too large to copy.
            OSError: the copy cannot be written.
        """
        if self.offset is None and not is_url(self.path):
            self._check_file()
            return self.path, self.sha1()
        # The name in the tar is a stranger's; only its suffix is kept, and only if it is a known one.
        suffix = suffix_of(self.uri)
        copy = folder / f"input{suffix if suffix in SUFFIXES else ''}"
        for left in reversed(range(_TRIES if is_url(self.path) else 1)):
            try:
                return str(copy), self._copy(copy, max_bytes)
            except SourceError as error:
                if left == 0 or isinstance(error.__cause__, FileNotFoundError | PermissionError | None):
                    raise
                time.sleep(_TRIES - left)
        raise AssertionError("unreachable")

    def side_car(self) -> str:
        """Text of the `.txt` beside the file; empty without one. Raises `SourceError`."""
        if self.offset is not None or (is_url(self.path) and "?" in self.path):
            return ""
        place = os.path.splitext(self.path)[0] + ".txt"
        if not is_url(place) and not os.path.isfile(place):
            return ""
        try:
            with open_place(place) as file:
                data = file.read(4 * CAPTION_CHARS)
        except Exception as error:
            if is_url(place):  # it was only guessed at, and servers say in many ways that it is not there
                return ""
            raise SourceError(f"its caption file cannot be read: {reason(error)}") from error
        text = clean_caption(data.decode("utf-8", "replace"))
        return "" if is_url(place) and text.startswith("<") else text  # a web page about a missing file

    def _check_file(self) -> None:
        try:
            info = os.stat(self.path)
        except (OSError, ValueError) as error:
            raise SourceError(f"cannot be read: {reason(error)}") from error
        if not stat.S_ISREG(info.st_mode):
            raise SourceError("not a regular file: a pipe, a device or a folder")
        self._check_size(info.st_size)

    def _check_size(self, size: int) -> None:
        if self.bytes is not None and size != self.bytes:
            raise SourceError(f"changed since it was listed: {self.bytes} bytes then, {size} now")

    def _copy(self, copy: Path, max_bytes: int) -> str:
        too_large = f"too large to copy: more than {max_bytes >> 20} MiB (max_copy_mb)"
        if (self.bytes or 0) > max_bytes:
            raise SourceError(too_large)
        size, digest = 0, hashlib.sha1()
        try:
            with open(copy, "wb") as file:
                for chunk in self.chunks():
                    size += len(chunk)
                    if size > max_bytes:
                        raise SourceError(too_large)
                    digest.update(chunk)
                    file.write(chunk)
            self._check_size(size)
        except BaseException:
            copy.unlink(missing_ok=True)  # a hundred of these would fill the disk before their shard is made
            raise
        return digest.hexdigest()


def clean_caption(text: str) -> str:
    """A caption as it is kept: without lone surrogates or space around it, at most `CAPTION_CHARS`."""
    return text.encode("utf-8", "replace").decode("utf-8").strip()[:CAPTION_CHARS]
