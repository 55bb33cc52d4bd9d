"""A clip may hang or crash its decoder: it costs the child, never the one who looks."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_prep.look import Looker
from data_prep.members import array_header, list_members, read_array, read_member
from live2diff.errors import DataError
from live2diff.video import write_video
from tests.data_prep.videos import numbered, numbers


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_video(tmp_path / "clip.mp4", numbered(40), 8, crf=5)
    return tmp_path / "clip.mp4"


def whole(path: Path) -> tuple[Path, tuple[int, int]]:
    return path, (0, path.stat().st_size)


def test_every_frame_is_decoded_and_those_wanted_are_shown(clip: Path):
    with Looker() as looker:
        seen = looker(*whole(clip), frames=(0, 17, 39), kind="png")
        small = looker(*whole(clip), frames=(5,), side=32)
    assert (seen.fault, seen.frames, seen.fps, seen.size) == (None, 40, 8.0, (96, 64))
    assert (seen.codec, seen.pixel_format, seen.streams) == ("h264", "yuv420p", 1)
    assert 1 < seen.gop <= 16
    pictures = [
        cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in seen.pictures.values()
    ]
    assert numbers(pictures) == [0, 17, 39]
    assert small.pictures[5].startswith(b"\xff\xd8")
    assert cv2.imdecode(np.frombuffer(small.pictures[5], np.uint8), 1).shape == (32, 48, 3)


def test_a_clip_that_never_ends_is_given_up(clip: Path, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")  # reading it takes for ever
    with Looker(wall_s=1.5) as looker:
        assert looker(tmp_path / "pipe", (0, 100)).fault == "takes longer than 1.5 s to decode"
        looker._wall_s = 300
        assert looker(*whole(clip)).frames == 40


def test_a_clip_that_is_too_much_work_is_given_up(clip: Path):
    with Looker(cpu_s=1) as looker:
        # Large pictures of every frame stand for a clip that is slow to decode.
        seen = looker(*whole(clip), frames=range(40), side=3000, kind="png")
        assert seen.fault == "takes longer than 1 processor seconds to decode"
        assert looker(*whole(clip)).frames == 40


def test_a_clip_that_kills_its_decoder_is_named(clip: Path, tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    with Looker() as looker:
        assert looker(*whole(clip)).fault is None
        child = looker._child
        assert child
        threading.Timer(0.2, os.kill, (child.pid, signal.SIGSEGV)).start()
        assert looker(tmp_path / "pipe", (0, 100)).fault == "crashes the decoder"
        assert looker(*whole(clip)).fault is None
        last = looker._child
        assert last and last.pid != child.pid
    assert last.poll() is not None, "the child outlives its parent's interest"


@pytest.mark.parametrize(
    "data",
    [b"", b"#EXTM3U\nhttp://127.0.0.1:9/x.ts\n", b"<html>", b"\0" * 5000, b"\x00\x00\x00\x18ftypmp42" * 99],
)
def test_what_is_no_clip_is_a_fault(tmp_path: Path, data: bytes):
    (tmp_path / "clip").write_bytes(data)
    with Looker() as looker:
        seen = looker(*whole(tmp_path / "clip"))
    assert seen.fault and seen.frames == 0 and "\n" not in seen.fault


def write_tar(path: Path, *entries: tarfile.TarInfo, data: bytes = b"") -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for entry in entries:
            tar.addfile(entry, io.BytesIO(data) if entry.isreg() else None)
    return path


def entry(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    info.linkname = "/etc/passwd" if kind != tarfile.REGTYPE else ""
    return info


def test_members_are_found_where_they_lie(tmp_path: Path):
    tar = write_tar(tmp_path / "a.tar", entry("k.mp4", 5), entry("k.txt", 5), data=b"hello")
    members = list_members(tar)
    assert list(members) == ["k.mp4", "k.txt"]
    assert [read_member(tar, place) for place in members.values()] == [b"hello"] * 2


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_members_that_are_no_files_are_refused(tmp_path: Path, kind: bytes):
    tar = write_tar(tmp_path / "a.tar", entry("k.txt", 0, kind))
    with pytest.raises(DataError, match="is no plain file"):
        list_members(tar)


def test_a_tar_that_lies_is_refused(tmp_path: Path):
    tar = write_tar(tmp_path / "twice.tar", entry("k.txt"), entry("k.txt"))
    with pytest.raises(DataError, match="two members named 'k.txt'"):
        list_members(tar)
    whole_tar = write_tar(tmp_path / "a.tar", entry("k.mp4", 9000), data=bytes(9000)).read_bytes()
    for cut, words in (
        (4000, "ends within|no readable tar"),
        (9728, "end mark|no readable tar"),
        (0, "no readable tar"),
    ):
        (tmp_path / "cut.tar").write_bytes(whole_tar[:cut] if cut else b"<html>")
        with pytest.raises(DataError, match=words):
            list_members(tmp_path / "cut.tar")


def test_an_array_is_never_more_than_its_bytes():
    def npy(array: np.ndarray) -> bytes:
        stream = io.BytesIO()
        np.save(stream, array)
        return stream.getvalue()

    array = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    assert (read_array(npy(array)) == array).all()
    assert array_header(npy(array))[:2] == ((2, 3, 4), np.dtype(np.uint16))
    huge = npy(array).replace(b"(2, 3, 4)", b"(9,9,999)")
    by_columns = npy(np.asfortranarray(array))
    for data in (
        huge,
        by_columns,
        npy(array)[:-1],
        npy(np.array([{}], object)),
        b"",
        b"\x93NUMPY\x01\x00\xff",
    ):
        with pytest.raises(ValueError):
            read_array(data)
