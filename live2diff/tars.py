"""The members of a tar that may be hostile: headers alone are read, of a bounded size, always forwards."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import IO

_HEADER_BYTES = 1 << 20  # a header may state any size; no real one comes near this
_LARGEST = 1 << 62  # bytes; more fits no file, and no column of an index


def open_tar(file: IO[bytes]) -> tarfile.TarFile:
    """A tar, uncompressed, at the position of `file`. Raises tarfile.TarError."""
    return tarfile.open(fileobj=_Bounded(file), mode="r:")  # pyright: ignore[reportArgumentType]


def entries(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The headers of `tar` in order; none is kept.

    Raises:
        tarfile.TarError, ValueError, OverflowError: damage; what came before has been yielded.
    """
    for entry in tar:
        tar.members = []  # it would keep every one
        # A negative size makes `tarfile` go backwards, and round in circles for ever.
        if not 0 <= entry.size < _LARGEST:
            raise tarfile.ReadError(f"a member of {entry.size} bytes")
        yield entry


class _Bounded:
    """A file of which `tarfile` reads no more at once than a header may need."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)
