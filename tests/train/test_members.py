"""Bytes and arrays out of tars: by offset, bounded, and nothing in them is ever run."""

from __future__ import annotations

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import webdataset as wds

from live2diff.errors import DataError
from train.members import DamagedError, Tar, Tars


def npy(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def tar_of(path, **members: bytes):
    with wds.TarWriter(str(path)) as writer:
        writer.write({"__key__": "a", **{name.replace("__", "."): data for name, data in members.items()}})
    return path


VALUES = np.arange(10 * 2 * 3, dtype=np.float16).reshape(10, 2, 3)


@pytest.mark.parametrize("rows", [range(10), range(3, 7), range(1, 10, 4), range(9, 10)])
def test_rows_are_those_of_the_array(tmp_path, rows):
    tar = Tar(tar_of(tmp_path / "x.tar", mp4=b"1" * 999, latents__npy=npy(VALUES)))
    assert np.array_equal(tar.rows("a", "latents.npy", rows, (2, 3), "float16"), VALUES[rows])
    assert np.array_equal(tar.rows("a", "latents.npy", None, (2, 3), "float16"), VALUES)


def test_only_the_rows_asked_for_are_read(tmp_path, monkeypatch):
    big = np.zeros((1000, 100), np.float32)
    tar = Tar(tar_of(tmp_path / "x.tar", depth__npy=npy(big)))
    sizes = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: sizes.append(size) or pread(fd, size, at))
    tar.rows("a", "depth.npy", range(0, 61, 4), (100,), "float32")
    assert sum(sizes) < 16 * 400 + (1 << 15)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(VALUES)[:-1], "values instead of 120"),
        (npy(VALUES)[:20], "no array"),
        (b"", "no array"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"[" * 70000, "no array"),
        (npy(VALUES.astype(np.float32)), "float32, expected"),
        (npy(np.asfortranarray(VALUES)), "expected"),
        (npy(VALUES[0]), "expected"),
        (npy(np.float16(3)), "expected"),
        (npy(VALUES[:5]), "has 5 rows, row 9 is wanted"),
    ],
)
def test_an_array_that_is_not_what_it_should_be_is_named(tmp_path, data, message):
    tar = Tar(tar_of(tmp_path / "x.tar", latents__npy=data))
    with pytest.raises(DamagedError, match=f"its .latents.npy .*{message}"):
        tar.rows("a", "latents.npy", range(0, 10, 3), (2, 3), "float16")


class Canary:
    def __reduce__(self):
        return os.mkdir, (os.environ["CANARY"],)


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    """Pickles of the kinds that WebDataset loads, and an array of objects; each would make a folder."""
    monkeypatch.setenv("CANARY", str(tmp_path / "dead"))
    evil = pickle.dumps(Canary())
    objects = npy(np.array([Canary()] * 10, object), allow_pickle=True)
    tar = Tar(tar_of(tmp_path / "x.tar", pyd=evil, pkl=evil, mp4=b"", latents__npy=objects))
    for kind in ("pyd", "pkl"):
        with pytest.raises(DamagedError, match=f"its .{kind} is missing"):
            tar.read("a", kind)
    with pytest.raises(DamagedError, match="expected"):
        tar.rows("a", "latents.npy", range(10), (2, 3), "float16")
    assert not (tmp_path / "dead").exists()
    with pytest.raises(AssertionError):  # the canary does sing
        pickle.loads(evil)
        assert not (tmp_path / "dead").exists()


def test_webdataset_sees_the_same_members(tmp_path):
    path = tar_of(tmp_path / "x.tar", mp4=b"12", txt=b"words", depth_range__npy=npy(VALUES))
    (sample,) = wds.WebDataset(str(path), shardshuffle=False)
    tar = Tar(path)
    assert tar.keys == [sample["__key__"]]
    for kind in ("mp4", "txt"):
        assert tar.read("a", kind) == sample[kind]
    assert sample["depth_range.npy"] == npy(VALUES)
    assert np.array_equal(tar.rows("a", "depth_range.npy", None, (2, 3), "float16"), VALUES)


def entry(tar, name, size=0, kind=tarfile.REGTYPE, link="", data=None):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    tar.addfile(info, io.BytesIO(data or bytes(size)))


def test_links_devices_and_sparse_files_are_no_members(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        entry(tar, "a.txt", kind=tarfile.SYMTYPE, link="/etc/passwd")
        entry(tar, "a.json", kind=tarfile.LNKTYPE, link="/etc/passwd")
        entry(tar, "a.npy", kind=tarfile.CHRTYPE)
        entry(tar, "a.mp4", 3)
    tar = Tar(path)
    assert tar.keys == ["a"] and tar.read("a", "mp4") == bytes(3)
    for kind in ("txt", "json", "npy"):
        with pytest.raises(DamagedError, match="missing"):
            tar.read("a", kind)


def test_a_member_that_states_more_than_the_file_holds_takes_no_memory(tmp_path):
    path = tmp_path / "x.tar"
    info = tarfile.TarInfo("a.mp4")
    info.size = 1 << 40
    path.write_bytes(info.tobuf() + bytes(512))
    with pytest.raises(DamagedError, match="its .mp4 is (cut off|missing)"):
        Tar(path).read("a", "mp4")


def test_few_tars_are_open_at_a_time(tmp_path):
    paths = [tar_of(tmp_path / f"{i}.tar", txt=str(i).encode()) for i in range(20)]
    tars = Tars(4)
    before = len(os.listdir("/proc/self/fd"))
    for path in paths + paths[::-1]:
        assert tars[path].read("a", "txt") == path.stem.encode()
        assert len(os.listdir("/proc/self/fd")) <= before + 4


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(DataError, match="x.tar: cannot be read .No such file"):
        Tars(4)[tmp_path / "x.tar"]
