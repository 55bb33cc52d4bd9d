"""What the arguments of a build mean."""

import os
from pathlib import Path

import pytest

from data_prep.sources import list_sources
from live2diff.errors import UsageError


def touch(path: Path, text: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_folders_are_searched_and_sorted_and_hidden_files_passed_over(tmp_path: Path):
    for name in ("b.mp4", "a/ü 视频.MOV", "a/notes.txt", ".hidden/c.mp4", "a/.staged.mp4"):
        touch(tmp_path / "in" / name)
    assert [source.uri for source in list_sources([str(tmp_path / "in")])] == ["in/a/ü 视频.MOV", "in/b.mp4"]


def test_a_file_reached_twice_is_listed_once(tmp_path: Path):
    one = touch(tmp_path / "in/one.mp4")
    assert len(list_sources([str(one), str(tmp_path / "in"), str(tmp_path)])) == 1


def test_a_named_file_needs_no_suffix(tmp_path: Path):
    assert list_sources([str(touch(tmp_path / "clip"))])[0].uri == "clip"


def test_the_split_name_does_not_depend_on_where_the_folder_lies(tmp_path: Path):
    names = []
    for place in ("here", "there/deep"):
        touch(tmp_path / place / "in/a/b.mp4")
        names.append(list_sources([str(tmp_path / place / "in")])[0].split_name)
    assert names == ["a/b.mp4"] * 2


def test_caption_is_the_side_car(tmp_path: Path):
    touch(tmp_path / "in/a.mp4")
    touch(tmp_path / "in/a.txt", " ein Fuchs läuft\n")
    touch(tmp_path / "in/b.mp4")
    assert [source.caption() for source in list_sources([str(tmp_path)])] == ["ein Fuchs läuft", ""]


def test_a_name_that_is_not_utf8_is_still_writable(tmp_path: Path):
    path = os.fsencode(tmp_path) + b"/\xff\xfe.mp4"
    open(path, "w").close()
    (source,) = list_sources([str(tmp_path)])
    source.uri.encode("utf-8")
    assert os.path.exists(source.path)


def test_wrong_paths_and_empty_folders_are_named(tmp_path: Path):
    with pytest.raises(UsageError, match="nowhere: no such file"):
        list_sources(["nowhere"])
    with pytest.raises(UsageError, match="holds no video file"):
        list_sources([str(tmp_path)])
