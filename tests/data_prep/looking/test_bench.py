"""`bench data`: what is counted adds up, and lands where it was asked for. No figure is asserted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep import bench as building
from data_prep.finished import Finished
from live2diff.cli import main
from live2diff.video import VideoReader, write_video
from tests.data_prep.videos import blocks
from train import bench_data as reading


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "videos"
    write_video(folder / "one.mp4", blocks(60, 1), 24)
    write_video(folder / "short.mp4", blocks(3, 2), 24)
    (folder / "page.mp4").write_text("<html>")
    return folder


def test_a_build_is_accounted_for(videos: Path, tmp_path: Path, capsys):
    result = building.measure_build([str(videos)], tmp_path / "dataset", ["prep=tiny", "val_fraction=0"])
    assert (result["files"], result["clips"]) == (3, 1)
    assert result["input_s"] == pytest.approx(63 / 24)  # of both that decode, kept or not
    assert result["originals"] == [str(videos / "one.mp4")]
    assert set(result["core_s"]) == {"probe", "shots", "encode", "filters", "rest", "shards"}
    rest = result["core_s"]["rest"]  # what two clocks of unlike grain leave over
    assert rest >= 0 and all(value > 0 for name, value in result["core_s"].items() if name != "rest")
    assert Finished(tmp_path / "dataset").clips.num_rows == 1
    assert capsys.readouterr().out == "", "the build talks into the table"
    lines = building.build_lines(result)
    assert (
        lines[0].startswith("3 files, 3 s of video, 1 clip;")
        and len({len(line) for line in lines[1:-1]}) == 1
    )


def test_the_command_prints_and_writes_both_tables(videos: Path, tmp_path: Path, monkeypatch, capsys):
    read = {"sample": {}, "frames": {"pyav": {"clips_per_s": 1.0}}}
    seen: list[Any] = []

    def measure_reading(dataset: Path, originals: list[Path], seconds: float) -> dict[str, Any]:
        seen.append((Finished(dataset).clips.num_rows, originals, seconds))
        return read

    monkeypatch.setattr(reading, "measure_reading", measure_reading)
    monkeypatch.setattr(reading, "make_model", lambda folder: seen.append(folder.name))
    monkeypatch.setattr(reading, "reading_lines", lambda result: ["a table"])
    monkeypatch.setattr(building, "add_columns", lambda *arguments: seen.append(arguments[-1].name))
    out = tmp_path / "figures.json"
    words = ["bench", "data", "prep=tiny", "--videos", str(videos), "--seconds", "5", "--json", str(out)]
    assert main(words) == 0
    assert seen == ["model", "model", (1, [videos / "one.mp4"], 1.0)]
    figures = json.loads(out.read_text())
    assert figures["read"] == read and figures["build"]["clips"] == 1 and "originals" not in figures["build"]
    assert figures["machine"]["cpu"] and figures["machine"]["versions"]["torch"]
    said = capsys.readouterr().out
    assert "decode every frame" in said and "a table" in said and f"figures: {out}" in said


def test_wrong_use_is_one_line(tmp_path: Path, capsys):
    assert main(["bench", "data", "--seconds", "0"]) == 2
    assert main(["bench", "data", "--json", str(tmp_path / "no/where.json")]) == 2
    assert main(["bench", "data", "--videos", str(tmp_path / "nowhere")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in errors] == ["error"] * 3


def test_the_sources_made_here_have_far_key_frames(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(building, "_TOYS", 1)
    monkeypatch.setattr(building, "_TOY_SIZE", (64, 48))
    assert building.make_sources(tmp_path) == [str(tmp_path)]
    (path,) = tmp_path.iterdir()
    import av

    with av.open(str(path)) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    with VideoReader(path) as video:
        assert len(list(video)) == len(keys) == 12 * 24
    assert sum(keys) <= 3
