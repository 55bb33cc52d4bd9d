"""What is found where, and how it opens: videos, folders of pictures, datasets, tars."""

from __future__ import annotations

import io
import json
import tarfile
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from live2diff.errors import DataError, UsageError
from live2diff.eval.clips import Clip, find_clips, open_clip, printable, stored_as
from live2diff.eval.pairs import Pair, PairReader, Rule, pair_up
from live2diff.eval.translate import translate_all
from live2diff.video import write_video
from tests.eval.videos import pan, write_pictures


def frames_of(address: str) -> np.ndarray:
    with open_clip(address) as source:
        return np.stack([frame.picture for frame in source])


def write_tar(path, members: dict[str, bytes]):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, pan(4), fps=10, crf=4)
    return path.read_bytes()


def test_videos_and_folders_of_pictures(tmp_path, clip):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/street.v2.MP4").write_bytes(clip)
    (tmp_path / "deep/street.v2.txt").write_text("a  street\n")
    (tmp_path / ".hidden.mp4").write_bytes(clip)
    (tmp_path / "notes.txt").write_text("no video")
    write_pictures(tmp_path / "bear", pan(3))
    (tmp_path / "bear.txt").write_text("a bear")
    found = {clip.name: clip for clip in find_clips(tmp_path)}
    assert list(found) == ["bear", "deep/street.v2"]
    assert found["bear"].caption == "a bear" and found["deep/street.v2"].caption == "a street"
    np.testing.assert_array_equal(frames_of(found["bear"].address), pan(3))
    decoded = frames_of(found["deep/street.v2"].address)
    assert np.abs(decoded.astype(int) - pan(4)).mean() < 8  # half of the colours are not stored
    assert stored_as(found["bear"].address) == "png"
    assert stored_as(found["deep/street.v2"].address) == "h264"


def test_pictures_come_in_the_order_of_their_numbers(tmp_path):
    write_pictures(tmp_path / "a", pan(3))
    for old, new in (("00002", "10"), ("00001", "9"), ("00000", "1")):
        (tmp_path / f"a/{old}.png").rename(tmp_path / f"a/{new}.png")
    np.testing.assert_array_equal(frames_of(str(tmp_path / "a")), pan(3))


def test_a_dataset_s_split_and_a_tar(tmp_path, clip):
    members = {"k1.mp4": clip, "k1.txt": b"one", "k1.json": b"{}", "k2.mp4": clip, "notes": b""}
    tar = write_tar(tmp_path / "val/clips-000000.tar", members)
    (tmp_path / "dataset.json").write_text(json.dumps({}))
    found = find_clips(tmp_path)
    assert [(clip.name, clip.caption) for clip in found] == [("k1", "one"), ("k2", None)]
    assert found == find_clips(tar)
    assert len(frames_of(found[1].address)) == 4 and stored_as(found[1].address) == "h264"
    with pytest.raises(UsageError, match="no clips in split=train; there is val"):
        find_clips(tmp_path, "train")


def test_places_that_hold_nothing(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        find_clips(tmp_path / "none")
    with pytest.raises(UsageError, match="holds neither videos nor folders of pictures"):
        find_clips(tmp_path)
    (tmp_path / "video.mp4").touch()
    with pytest.raises(UsageError, match="is no folder, dataset or .tar"):
        find_clips(tmp_path / "video.mp4")
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match="cannot be read as a tar"):
        find_clips(tmp_path / "bad.tar")
    with pytest.raises(DataError, match="holds no k.mp4"):
        open_clip(f"{write_tar(tmp_path / 'empty.tar', {})}#k")


def test_damaged_pictures_end_a_clip(tmp_path):
    folder = write_pictures(tmp_path / "a", pan(3))
    (folder / "00001.png").write_bytes(b"no picture")
    with open_clip(str(folder)) as source:
        assert len(list(source)) == 1
    assert "00001.png: cannot be read as a picture" in str(source.damage)
    (folder / "00000.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match="cannot be read as a picture"):
        open_clip(str(folder))


def test_pairs_are_by_name(tmp_path):
    for name in ("both", "alone"):
        write_pictures(tmp_path / "source" / name, pan(2))
    for name in ("both", "stray"):
        write_pictures(tmp_path / "pred" / name, pan(2))
    sources = find_clips(tmp_path / "source")
    pairs, skipped = pair_up([*sources, sources[0]], find_clips(tmp_path / "pred"))
    assert [pair.name for pair in pairs] == ["both"]
    assert {skip.name: skip.reason for skip in skipped} == {
        "alone": "two sources have this name",
        "stray": "there is no source of this name",
    }
    pairs, skipped = pair_up(sources, find_clips(tmp_path / "pred"))
    assert skipped[0].reason == "there is no output of this name"


def read(tmp_path, rule: Rule, source: np.ndarray, pred: np.ndarray):
    folders = [tmp_path / name for name in ("source", "pred")]
    for folder, video in zip(folders, (source, pred), strict=True):
        if not folder.exists():
            write_pictures(folder, video)
    with PairReader(Pair("a", str(folders[0]), str(folders[1])), rule) as reader:
        return [(before.copy(), after.copy()) for before, after in reader], reader


def test_sources_are_fitted_to_outputs(tmp_path):
    source, pred = pan(3, (80, 48)), pan(3, (32, 24))
    for rule, shapes in (
        (Rule(), (24, 32, 3)),
        (Rule(size=(40, 40)), (40, 40, 3)),
    ):
        frames, reader = read(tmp_path, rule, source, pred)
        assert {frame.shape for pair in frames for frame in pair} == {shapes}
        assert (reader.size, reader.count) == ((shapes[1], shapes[0]), 3)
    crop, pad = (read(tmp_path, Rule(fit=how), source, pred)[0][0][0] for how in ("crop", "pad"))
    assert [bool((each == 0).all(axis=(1, 2)).any()) for each in (crop, pad)] == [False, True]  # black bars


def test_lengths(tmp_path):
    source, pred = pan(5), pan(3)
    with pytest.raises(DataError, match="5 frames in the source, 3 in the output; length=shortest compares"):
        read(tmp_path, Rule(), source, pred)
    assert len(read(tmp_path, Rule(length="shortest"), source, pred)[0]) == 3
    assert len(read(tmp_path, Rule(frames=2), source, pred)[0]) == 2


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil"])
def test_a_name_does_not_lead_out_of_the_outputs(tmp_path, name):
    setup = cast(Any, SimpleNamespace(begin=lambda model: None))
    clips = [Clip(name, "none.mp4")]
    pairs, skipped = translate_all(clips, {}, setup, cast(Any, None), tmp_path / "pred")
    assert not pairs and "leads out of the folder" in skipped[0].reason


def test_names_are_printed_as_one_line():
    assert printable("Straße 1") == "Straße 1"
    assert printable("a\x1b[2J\nb") == "a\\x1b[2J\\nb"
