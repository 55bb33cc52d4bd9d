"""What the arguments of a build mean."""

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.sources import Source, SourceError, list_sources
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
    assert [source.side_car() for source in list_sources([str(tmp_path)])] == ["ein Fuchs läuft", ""]


def test_globs_reach_as_far_as_they_say(tmp_path: Path):
    for name in ("a.mp4", "a.txt", "x/b.mp4", "x/y/c.webm", "x/.hidden/d.mp4", "list.csv", "z.[1].mp4"):
        touch(tmp_path / "in" / name, name)

    def names(pattern: str) -> list[str]:
        return [source.uri for source in list_sources([str(tmp_path / "in" / pattern)])]

    assert names("*.mp4") == ["in/a.mp4", "in/z.[1].mp4"]
    assert names("**/*.mp4") == ["in/a.mp4", "in/x/b.mp4", "in/z.[1].mp4"]
    assert names("**") == ["in/a.mp4", "in/x/b.mp4", "in/x/y/c.webm", "in/z.[1].mp4"]
    assert names("x*") == ["in/x/b.mp4", "in/x/y/c.webm"]  # a folder that matches is searched
    assert names("z.[1].mp4") == ["z.[1].mp4"]  # a file that is there is no glob
    with pytest.raises(UsageError, match="matches nothing"):
        names("*.mov")


def test_a_glob_draws_the_same_splits_as_its_folder(tmp_path: Path):
    for name in ("in/a.mp4", "in/x/b.mp4"):
        touch(tmp_path / name)
    by_folder = list_sources([str(tmp_path / "in")])
    assert list_sources([str(tmp_path / "in/**/*.mp4")]) == by_folder
    assert [source.split_name for source in by_folder] == ["a.mp4", "x/b.mp4"]


def test_a_million_files_are_only_looked_at(tmp_path: Path, monkeypatch):
    """Listing opens nothing; grouping reads only files of equal size."""
    import data_prep.sources.source as source
    from data_prep.worklist import make_units

    for number in range(30):
        touch(tmp_path / f"in/{number}.mp4", "x" * (number + 1))
    touch(tmp_path / "in/twin.mp4", "x" * 7)
    opened = []
    monkeypatch.setattr(source, "open_place", lambda place: opened.append(place) or open(place, "rb"))
    found = list_sources([str(tmp_path / "in")])
    assert len(found) == 31 and not opened
    make_units(found, sources_per_shard=10, val_fraction=0.1)
    assert sorted(map(os.path.basename, opened)) == ["6.mp4", "twin.mp4"]


def test_what_a_source_became_since_it_was_listed_is_a_reason(tmp_path: Path):
    for name in ("gone.mp4", "grown.mp4", "folder.mp4", "locked.mp4", "same.mp4"):
        touch(tmp_path / "in" / name)
    found = {source.uri: source for source in list_sources([str(tmp_path / "in")])}
    (tmp_path / "in/gone.mp4").unlink()
    touch(tmp_path / "in/grown.mp4", "xx")
    (tmp_path / "in/folder.mp4").unlink()
    (tmp_path / "in/folder.mp4").mkdir()
    for name, reason in {
        "gone.mp4": "cannot be read: it is gone",
        "grown.mp4": "changed since it was listed: 1 bytes then, 2 now",
        "folder.mp4": "not a regular file",
    }.items():
        with pytest.raises(SourceError, match=reason):
            found[f"in/{name}"].fetch(tmp_path, 100)
    path, sha1 = found["in/same.mp4"].fetch(tmp_path, 0)  # no copy, so no limit
    assert path == str(tmp_path / "in/same.mp4") and sha1 == hashlib.sha1(b"x").hexdigest()


def test_a_source_survives_the_work_list(tmp_path: Path):
    path = os.fsencode(tmp_path) + b"/\xff\xfe.mp4"
    open(path, "w").close()
    (source,) = list_sources([str(tmp_path)])
    back = Source.from_row(json.loads(json.dumps(source.row())))
    assert back == replace(source, split_name="") and os.path.exists(back.path)


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
