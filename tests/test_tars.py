"""Headers of a hostile tar: never round in circles, never more memory than a header may need."""

from __future__ import annotations

import io
import tarfile

import pytest

from live2diff.tars import entries, open_tar


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header block that states any size, in the base-256 form."""
    entry = tarfile.TarInfo(name)
    entry.type = kind
    block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (size % (1 << 96)).to_bytes(12, "big")
    if size >= 0:
        block[124] |= 0x80
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("last", [header("b", -1024), header("b", 1 << 70), header("b", -512)])
def test_a_size_that_no_file_has_ends_the_list(last):
    data = header("z", 0) + header("a", 0) + last + bytes(1024)
    names = []
    with open_tar(io.BytesIO(data)) as tar, pytest.raises(tarfile.TarError, match="a member of"):
        for entry in entries(tar):
            names.append(entry.name)
            assert len(names) < 10
    assert names == ["z", "a"]


def test_a_long_name_of_a_terabyte_is_not_read():
    data = header("././@LongLink", 1 << 40, tarfile.GNUTYPE_LONGNAME) + bytes(2048)
    with pytest.raises(tarfile.TarError, match="a header of"):
        with open_tar(io.BytesIO(data)) as tar:
            list(entries(tar))


def test_an_ordinary_tar_is_listed_whole():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("a.mp4", "n" * 300 + ".json"):
            entry = tarfile.TarInfo(name)
            entry.size = 3
            tar.addfile(entry, io.BytesIO(b"abc"))
    buffer.seek(0)
    with open_tar(buffer) as tar:
        found = [(entry.name, entry.size) for entry in entries(tar)]
    assert found == [("a.mp4", 3), ("n" * 300 + ".json", 3)]
