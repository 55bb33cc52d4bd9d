"""Captions and trigger words: from where, in which order, and the command that writes them."""

from __future__ import annotations

import numpy as np
import pytest

from live2diff.cli import main
from live2diff.errors import UsageError
from live2diff.eval.captions import captions_of, middle_frame, prompt, read_table, write_table
from live2diff.eval.clips import Clip
from tests.eval.videos import pan, write_pictures


def test_trigger_words_stand_before_or_after():
    assert prompt("a street", "cartoon style", "prefix") == "cartoon style, a street"
    assert prompt("a street", "cartoon style", "suffix") == "a street, cartoon style"
    assert prompt(" a street", "", "suffix") == prompt("", "a street", "prefix") == "a street"


def test_a_table_comes_back_and_has_the_first_word(tmp_path):
    table = tmp_path / "captions.csv"
    write_table(table, {"bear": 'a bear, "brown"', "deep/street": "ein Straße\n am Abend"})
    assert read_table(table) == {"bear": 'a bear, "brown"', "deep/street": "ein Straße am Abend"}
    clips = [Clip("bear", "x", "beside"), Clip("camel", "y", "a camel")]
    found, whence = captions_of(clips, str(table))
    assert found == {"bear": 'a bear, "brown"', "camel": None} and whence.startswith("table ")
    write_table(table, {"bear": "another"})
    assert captions_of(clips, str(table))[1] != whence
    assert captions_of(clips, None) == ({"bear": "beside", "camel": "a camel"}, "beside the videos")
    assert captions_of([Clip("a", "x")], None) == ({"a": None}, "none")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("file,text\na,b\n", "row 1 has no name or caption"),
        ("name,caption\na,b\n,c\n", "row 2 has no name or caption"),
        ("name,caption\na," + "x" * 3000, "longer than 2000"),
        ("name,caption\na,\xff", "cannot be read as CSV"),
    ],
)
def test_tables_that_are_none(tmp_path, text, line):
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=line):
        read_table(tmp_path / "t.csv")
    with pytest.raises(UsageError, match="no such file; live2diff eval caption writes one"):
        read_table(tmp_path / "none.csv")


def test_the_middle_frame(tmp_path):
    for frames, middle in ((1, 0), (5, 2), (6, 3)):
        folder = write_pictures(tmp_path / str(frames), pan(frames))
        np.testing.assert_array_equal(middle_frame(str(folder)), pan(frames)[middle])


def test_the_command_writes_a_table(tmp_path, monkeypatch, capsys):
    """With a captioner that says how bright the picture in the middle is."""

    class Captioner:
        def __init__(self, model: str, prompt: str | None, device: str):
            self.words = f"{model} {prompt} {device}"

        def __call__(self, image: np.ndarray) -> str:
            return f"{self.words} {int(image.mean())}"

    monkeypatch.setattr("data_prep.captioner.Captioner", Captioner)
    for name, level in (("dark", 10), ("bright", 200)):
        frames = np.zeros((3, 16, 16, 3), np.uint8)
        frames[1] = level
        write_pictures(tmp_path / "JPEGImages/480p" / name, frames)
    table = tmp_path / "captions.csv"
    words = ["eval", "caption", "eval=davis", "--source", str(tmp_path), "--captioner", "blip"]
    assert main([*words, "--out", str(table)]) == 0
    assert read_table(table) == {"bright": "blip None auto 200", "dark": "blip None auto 10"}
    assert f"{table}: captions of 2 videos" in capsys.readouterr().out
    assert main([*words, "--out", str(table)]) == 2
    assert "exists already" in capsys.readouterr().err
    (tmp_path / "JPEGImages/480p/dark/00001.png").write_bytes(b"")
    table.unlink()
    assert main([*words, f"captions={table}"]) == 3
    assert "skipped dark: " in capsys.readouterr().err
    assert list(read_table(table)) == ["bright"]
