"""`data show`: the right frames on one picture, and help for a wrong key."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.finished import Finished
from data_prep.show import draw
from live2diff.cli import main
from live2diff.errors import DataError
from live2diff.video import VideoReader


def row_of(dataset: Path, uri: str) -> dict:
    return next(row for row in Finished(dataset).clips.to_pylist() if row["uri"].endswith(uri))


def test_frames_and_columns_are_shown(finished: Path, tmp_path: Path, capsys):
    row = row_of(finished, "two shots.mp4")
    out = tmp_path / "strip.png"
    assert main(["data", "show", str(finished), row["key"], "--out", str(out)]) == 0
    picture = cv2.imread(str(out))
    assert picture is not None and picture.shape[:2] == (3 * (20 + 192 + 4), 8 * (288 + 4) - 4)
    said = capsys.readouterr().out
    for words in (
        row["key"],
        row["shard"],
        "two shots.mp4",
        "columns    depth, latents, text",
        f"picture: {out}",
    ):
        assert words in said


def test_the_pictures_are_the_frames(finished: Path, tmp_path: Path):
    dataset = Finished(finished)
    row = row_of(finished, "a square.mp4")
    (tmp_path / "clip.mp4").write_bytes(dataset.member(row, "mp4") or b"")
    with VideoReader(tmp_path / "clip.mp4") as video:
        frames = list(video)
    picture = draw(dataset, row)
    for place, number in ((0, 0), (7, row["frames"] - 1)):
        shown = picture[20:212, place * 292 : place * 292 + 288].astype(int)
        apart = [np.abs(shown - cv2.resize(frame, (288, 192))).mean() for frame in frames]
        assert int(np.argmin(apart)) == number and apart[number] < 5


def test_a_wrong_key_names_near_ones(finished: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    key = row_of(finished, "a square.mp4")["key"]
    dropped = Finished(finished).kind("dropped").to_pylist()[0]["key"]
    wrong = {
        key[:-1] + "7": key,
        "a square": key,  # part of the source's name
        "": "no clip of",
        dropped: "was dropped, so its frames were not kept (static",
    }
    for word, expected in wrong.items():
        assert main(["data", "show", str(finished), word]) == 2
        assert expected in capsys.readouterr().err
    assert main(["data", "show", str(finished), key, "--out", "strip.jpg"]) == 2
    assert main(["data", "show", str(tmp_path), key]) == 2
    assert not list(tmp_path.iterdir())


def test_damage_is_one_line(copy: Path, tmp_path: Path, capsys):
    row = row_of(copy, "a square.mp4")
    tar, (start, size) = Finished(copy).place(row, "mp4") or (copy, (0, 0))
    data = tar.read_bytes()
    tar.write_bytes(data[: start + size // 2] + bytes(size // 2) + data[start + size // 2 * 2 :])
    assert main(["data", "show", str(copy), row["key"], "--out", str(tmp_path / "out.png")]) == 3
    said = capsys.readouterr().err
    assert said.startswith("error: ") and row["key"] in said and said.count("\n") == 1
    tar.unlink()
    assert main(["data", "show", str(copy), row["key"], "--out", str(tmp_path / "out.png")]) == 3
    assert not (tmp_path / "out.png").exists()


def test_the_index_does_not_lead_out_of_the_dataset(copy: Path, tmp_path: Path):
    row = row_of(copy, "a square.mp4")
    (tmp_path / "secret.tar").write_bytes((copy / row["shard"]).read_bytes())
    table = pq.read_table(copy / "index.parquet")
    rows = [{**one, "shard": "../secret.tar"} for one in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), copy / "index.parquet")
    with pytest.raises(DataError, match="no shard is named '../secret.tar'"):
        draw(Finished(copy), row_of(copy, "a square.mp4"))
