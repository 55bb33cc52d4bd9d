"""Bytes and arrays out of the tars of a dataset, by offset: nothing before them is read, nothing is unpacked.

A tar may hold anything. Members that training has no use for, a pickle for one, are never read; an array is
read with its pickles refused and never beyond its member.
"""

from __future__ import annotations

import io
import math
import os
import tarfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from live2diff.errors import DataError
from live2diff.tars import entries, open_tar

_KINDS = ("mp4", "txt", "json", "npy")
_LARGEST = {"mp4": 1 << 30, "txt": 1 << 20, "json": 1 << 20}  # bytes read of one member
_LONGEST_HEADER = 1 << 14  # of an array, bytes; numpy refuses longer ones


class DamagedError(Exception):
    """A member that is missing, cut off or not what its name says. The message is the reason."""


class Tar:
    """One tar, open for reading.

    Attributes:
        keys: in the order of the tar.
        damage: why the tar could not be read to its end, or None; members before that are there.

    Raises:
        DataError: the file cannot be opened or read at all.
    """

    def __init__(self, path: Path):
        self.path = path
        self.damage: str | None = None
        self._places: dict[str, dict[str, tuple[int, int]]] = {}
        try:
            self._file = open(path, "rb", buffering=0)
            self._size = os.fstat(self._file.fileno()).st_size
            with open(path, "rb") as file:  # buffered: headers may lie close together
                self._list(file)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        self.keys = list(self._places)

    def _list(self, file: io.BufferedReader) -> None:
        try:
            with open_tar(file) as tar:
                for entry in entries(tar):
                    folder, slash, name = entry.name.rpartition("/")
                    key, _, kind = name.partition(".")  # at the first dot, as WebDataset does
                    plain = entry.isreg() and entry.sparse is None
                    if plain and key and kind.rpartition(".")[2] in _KINDS:
                        place = (entry.offset_data, entry.size)
                        self._places.setdefault(folder + slash + key, {}).setdefault(kind, place)
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            self.damage = one_line(error)

    def read(self, key: str, kind: str) -> bytes:
        """The member `KEY.kind`. Raises DamagedError, or DataError when the file cannot be read."""
        offset, size = self._place(key, kind)
        if size > _LARGEST[kind]:
            raise DamagedError(f"its .{kind} states {size} bytes")
        return self._at(offset, size)

    def rows(self, key: str, kind: str, rows: range | None, shape: Sequence[int], dtype: str) -> np.ndarray:
        """Some rows of the array `KEY.kind`; what lies between them is not read.

        Args:
            rows: which; None for all.
            shape: of one row.
            dtype: of the values.

        Raises:
            DamagedError: no array, another shape or type, or fewer rows.
            DataError: the file cannot be read.
        """
        offset, size = self._place(key, kind)
        count, start = self._array(key, kind, offset, size, tuple(shape), np.dtype(dtype))
        rows = range(count) if rows is None else rows
        if rows and rows[-1] >= count:
            raise DamagedError(f"its .{kind} has {count} rows, row {rows[-1]} is wanted")
        length = math.prod(shape) * np.dtype(dtype).itemsize
        if rows.step == 1:
            data = self._at(start + rows.start * length, len(rows) * length)
        else:
            data = b"".join(self._at(start + row * length, length) for row in rows)
        return np.frombuffer(data, dtype).reshape(len(rows), *shape)

    def _array(
        self, key: str, kind: str, offset: int, size: int, shape: tuple[int, ...], dtype: np.dtype
    ) -> tuple[int, int]:
        """Number of rows, and where in the file the first begins."""
        head = io.BytesIO(self._at(offset, min(size, _LONGEST_HEADER)))
        try:
            if np.lib.format.read_magic(head) != (1, 0):
                raise ValueError("another version of the format")
            found, by_columns, kind_found = np.lib.format.read_array_header_1_0(head)
        except Exception as error:  # the header is a Python literal: parsing one may fail in many ways
            raise DamagedError(f"its .{kind} is no array ({one_line(error)})") from error
        if kind_found != dtype or by_columns or not found or found[1:] != shape:
            raise DamagedError(f"its .{kind} is {found} {kind_found}, expected (rows, *{shape}) {dtype}")
        start, length = head.tell(), math.prod(found) * dtype.itemsize
        if start + length != size:
            raise DamagedError(f"its .{kind} has {size - start} bytes of values instead of {length}")
        return found[0], offset + start

    def _place(self, key: str, kind: str) -> tuple[int, int]:
        try:
            offset, size = self._places[key][kind]
        except KeyError:
            where = f" ({self.path.name} cannot be read to its end: {self.damage})" if self.damage else ""
            raise DamagedError(f"its .{kind} is missing{where}") from None
        if offset + size > self._size:
            raise DamagedError(f"its .{kind} is cut off: the file ends at {self._size} bytes")
        return offset, size

    def _at(self, offset: int, size: int) -> bytes:
        try:
            data = os.pread(self._file.fileno(), size, offset)
            while len(data) < size:  # one call reads 2 GiB at most, and less from some filesystems
                more = os.pread(self._file.fileno(), size - len(data), offset + len(data))
                if not more:
                    raise DamagedError(f"the file ends before byte {offset + size}")
                data += more
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        return data

    def close(self) -> None:
        self._file.close()


class Tars:
    """The tars in use; the one used longest ago is closed when there are more than `most`."""

    def __init__(self, most: int):
        self._most = most
        self._open: OrderedDict[Path, Tar] = OrderedDict()

    def __getitem__(self, path: Path) -> Tar:
        if path in self._open:
            self._open.move_to_end(path)
        else:
            self._open[path] = Tar(path)
            if len(self._open) > self._most:
                self._open.popitem(last=False)[1].close()
        return self._open[path]


def one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
