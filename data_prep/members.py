"""Members of a shard: where they lie in the tar, and their bytes. Nothing is extracted to disk.

A shard may come from anyone: members that are no plain files are refused, sizes are checked before memory is
taken, and arrays are never unpickled.
"""

from __future__ import annotations

import io
import math
import tarfile
from pathlib import Path

import numpy as np

from live2diff.errors import DataError
from live2diff.tars import entries, open_tar

_LARGEST = 1 << 30  # bytes of one member; a clip of ten seconds has about a million
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

Place = tuple[int, int]  # offset in the tar and size, bytes


def list_members(tar_path: Path) -> dict[str, Place]:
    """Name of each member -> its place, in the order of the tar. Only headers are read.

    Raises:
        DataError: no tar, a tar cut short, a member that is no plain file, or two of one name.
    """
    members: dict[str, Place] = {}
    try:
        size = tar_path.stat().st_size
        with open(tar_path, "rb") as file, open_tar(file) as tar:
            for member in entries(tar):
                if not member.isreg() or member.sparse is not None:
                    raise DataError(f"{tar_path}: member {member.name!r} is no plain file")
                if member.name in members:
                    raise DataError(f"{tar_path}: holds two members named {member.name!r}")
                if member.offset_data + member.size > size:
                    raise DataError(f"{tar_path}: ends within member {member.name!r}")
                members[member.name] = (member.offset_data, member.size)
            end = tar.offset
    except (OSError, tarfile.TarError, ValueError, OverflowError) as error:
        raise DataError(f"{tar_path}: is no readable tar ({error})") from error
    if end + tarfile.BLOCKSIZE > size:
        raise DataError(f"{tar_path}: is cut short: the end mark of the tar is missing")
    return members


def read_member(tar_path: Path, place: Place) -> bytes:
    """The bytes of one member. Raises `DataError` if it is too large for what shards hold."""
    offset, size = place
    if size > _LARGEST:
        raise DataError(f"{tar_path}: a member of {size} bytes is too large")
    with open(tar_path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def array_header(data: bytes) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, type, and where the values begin, of an array in `.npy` form.

    Raises:
        ValueError: no array, one of Python objects, or one whose size is not that of its values.
    """
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"array format {version} is unknown")
    try:
        shape, columns_first, dtype = _HEADERS[version](stream)
    except Exception as error:  # the header is a Python literal: parsing one may fail in many ways
        raise ValueError(f"no header of an array ({' '.join(str(error).split())})") from error
    if dtype.hasobject or columns_first:
        raise ValueError("an array of Python objects" if dtype.hasobject else "an array stored by columns")
    if math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"the array states {shape} {dtype}, but holds {len(data) - stream.tell()} bytes")
    return shape, dtype, stream.tell()


def read_array(data: bytes) -> np.ndarray:
    """The array in `.npy` form, as a view of `data`. Raises ValueError (see `array_header`)."""
    shape, dtype, start = array_header(data)
    return np.frombuffer(data, dtype, offset=start).reshape(shape)
