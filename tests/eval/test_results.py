"""results.json comes back as it was written; what is no results.json is refused with one line."""

from __future__ import annotations

import copy
import json

import pytest

from live2diff.errors import DataError
from live2diff.eval.results import Figure, Results, Skipped, VideoResult, read, signature_text, write


def results() -> Results:
    figure = Figure({"flow": "dis", "version": 1, "share": 0.01}, 0.1, 0.05, None, "", "lower", 1)
    video = VideoResult(
        "bear", "s/bear", "9f", "p/bear.mp4", 3, 23.976, None, {"e": 0.1}, {"e": [None, 0.1, 0.2]}
    )
    return Results(
        "s", "p", {"e": figure}, [video], [Skipped("camel", "damaged")], {"cpu": "x"}, "2026-11-21"
    )


def test_round_trip(tmp_path):
    write(results(), tmp_path / "results.json")
    assert read(tmp_path / "results.json") == read(tmp_path) == results()
    data = json.loads((tmp_path / "results.json").read_text())
    assert list(data)[:2] == ["format", "live2diff"] and data["format"] == 2


def test_a_signature_is_one_stable_line():
    assert signature_text({"b": 1, "a": "x y"}) == signature_text({"a": "x y", "b": 1}) == "a:x y|b:1"


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        ("format", 1, "is of format 1, and this version reads format 2"),
        ("format", None, "format is missing"),
        ("figures", [], "figures is of another kind"),
        ("figures.e.mean", "0.1", "figures.e.mean is no number"),
        ("figures.e.mean", 10**400, "figures.e.mean is no finite number"),
        ("figures.e.better", "more", "better is neither lower nor higher"),
        ("figures.e.signature", {"k": [1]}, "signature.k is neither a text nor a number"),
        ("videos.0.frames", True, "frames is of another kind"),
        ("videos.0.frames", 4, "per_frame.e holds 3 values for 4 frames"),
        ("videos.0.values", {"other": 1}, "other is none of the figures"),
        ("videos.0.name", "x" * 3000, "name is longer than 2000 characters"),
        ("videos.0", 3, "videos[0] holds no table"),
        ("skipped.0.reason", 3, "skipped[0].reason is of another kind"),
    ],
)
def test_other_files_are_refused(tmp_path, place, value, line):
    path = tmp_path / "results.json"
    write(results(), path)
    data = json.loads(path.read_text())
    inner, *keys = [data, *place.split(".")]
    for key in keys[:-1]:
        inner = inner[int(key) if isinstance(inner, list) else key]
    last = int(keys[-1]) if isinstance(inner, list) else keys[-1]
    inner[last] = copy.deepcopy(value)
    path.write_text(json.dumps(data))
    with pytest.raises(DataError) as error:
        read(path)
    assert line in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": NaN}', "[" * 100_000, "\xff"])
def test_no_json(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match="results.json: "):
        read(path)
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "none.json")
