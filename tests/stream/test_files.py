"""`live2diff stream` as a user runs it, on a tiny model with random weights."""

from __future__ import annotations

import csv
import os
import signal

import numpy as np
import pytest

from live2diff.cli import main
from live2diff.stream import source
from live2diff.stream.engine import Stream
from live2diff.stream.source import open_source
from tests.stream.media import packets_of, still, times_of, write
from tests.stream.test_source import FakeCamera


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4", still(14), sound="aac")


def stream(export, clip, out, *words):
    return main(["stream", str(export), "--input", str(clip), "--output", str(out), *words])


def left_in(folder):
    return sorted(item.name for item in folder.iterdir())


def test_it_ends_by_saying_what_is_where(export, clip, tmp_path, capsys):
    out = tmp_path / "out.mkv"
    assert stream(export, clip, out, "--size", "24x40", "--fit", "pad") == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{out}: 14 frames of 24x40, 0.6 s, sound copied; took ")
    assert said.out.rstrip().splitlines()[-1].startswith("next: ")
    assert said.err == "streaming: 14 frames done\n"
    assert len(times_of(out)) == 14 and packets_of(out)


def test_strength_is_another_word_for_steps(export, clip, tmp_path):
    """For a model of two steps, 0.5 is 25,37; its own are 30,40."""
    for name, words in (("a", ["--strength", "0.5"]), ("b", ["--steps", "25,37"])):
        assert stream(export, clip, tmp_path / f"{name}.mp4", *words) == 0
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_pipe_gets_frames_only(export, clip, tmp_path, capfdbinary):
    assert stream(export, clip, "-") == 0
    said = capfdbinary.readouterr()
    assert said.out.startswith(b"YUV4MPEG2 W32 H32 F25:1 ") and b"standard output: 14 frames" in said.err
    assert len(said.out) == said.out.index(b"\n") + 1 + 14 * (6 + 32 * 32 * 3 // 2)


def test_a_pipe_that_is_closed_is_no_error(export, clip, capfd):
    read, write_end = os.pipe()
    os.close(read)
    saved = os.dup(1)
    os.dup2(write_end, 1)
    try:
        assert stream(export, clip, "-") == 141
    finally:
        os.dup2(saved, 1)
        os.close(saved)
        os.close(write_end)
    assert "error" not in capfd.readouterr().err


def test_fewer_frames_than_the_warm_up_are_translated_all_the_same(export, tmp_path, capsys):
    clip, out = write(tmp_path / "short.mp4", still(5)), tmp_path / "out.mp4"
    assert stream(export, clip, out) == 0
    assert len(times_of(out)) == 5
    assert f"warning: {clip}: has 5 frames, the warm-up takes 8" in capsys.readouterr().err


def test_what_comes_before_damage_is_kept(export, shared, tmp_path, capsys):
    out = tmp_path / "out.mp4"
    assert stream(export, shared / "data/broken/natural_corrupted.mp4", out) == 2
    said = capsys.readouterr()
    assert said.err.splitlines()[-1].startswith("error: ") and "damaged after frame 28" in said.err
    assert f"{out}: 28 frames" in said.out and len(times_of(out)) == 28


def at_frame(number, act):
    """A `Stream.push` that does `act` at its Nth call."""
    push, calls = Stream.push, []

    def counting(self, frame):
        calls.append(frame)
        if len(calls) == number:
            act()
        return push(self, frame)

    return counting


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_is_done(export, clip, tmp_path, monkeypatch, capsys, number, code):
    out = tmp_path / "out.mp4"
    monkeypatch.setattr(Stream, "push", at_frame(12, lambda: os.kill(os.getpid(), number)))
    assert stream(export, clip, out) == code
    assert len(times_of(out)) == 11  # of 12 pushed, one is in the pipeline
    said = capsys.readouterr().out
    assert f"{out}: 11 frames" in said and said.endswith("stopped early; what was done is kept\n")


def test_a_signal_in_the_warm_up_leaves_nothing(export, clip, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Stream, "push", at_frame(3, lambda: os.kill(os.getpid(), signal.SIGTERM)))
    assert stream(export, clip, tmp_path / "out.mp4", "--side-by-side", str(tmp_path / "pair.png")) == 143
    assert left_in(tmp_path) == [] and "nothing was done yet" in capsys.readouterr().out


def test_a_camera(export, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(source.cv2, "VideoCapture", FakeCamera)
    out = tmp_path / "out.mp4"
    assert stream(export, "camera:1", out, "--size", "32x24") == 5
    said = capsys.readouterr()
    assert len(times_of(out)) == 4 and f"{out}: 4 frames of 32x24" in said.out
    assert said.err.splitlines()[-1] == "error: camera:1: delivers no more frames; is it still connected?"
    assert stream(export, "camera:2", tmp_path / "none.mp4") == 5
    assert capsys.readouterr().err.startswith("error: camera:2: no such camera")
    assert left_in(tmp_path) == ["out.mp4"]


def test_side_by_side_shows_pairs(export, clip, tmp_path):
    import cv2

    assert stream(export, clip, tmp_path / "out.mp4", "--side-by-side", str(tmp_path / "pair.png")) == 0
    pair = cv2.imread(str(tmp_path / "pair.png"))
    rows, columns = pair.shape[0] // 2, pair.shape[1]
    assert columns == 7 * rows  # frames 0, 2, 4 … 12
    assert np.abs(pair[:rows].astype(int) - pair[rows:]).mean() > 5


@pytest.mark.slow
@pytest.mark.parametrize("number", range(31))
def test_every_real_video(export, shared, tmp_path, capsys, number):
    """As many frames out as in, each at its time, sound in sync: all files, from start to end."""
    with open(shared / "data/videos/index.tsv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) == 31
    path = shared / "data/videos" / rows[number]["path"]
    out = tmp_path / "out.mp4"
    assert stream(export, path, out, "--steps", "40", "--size", "32x32") == 0
    said = capsys.readouterr().out

    with open_source(str(path)) as video:
        moments = [frame.moment for frame in video]
        begin, interval = float(video.begin), float(1 / video.fps)
    times = times_of(out)
    assert len(times) == len(moments) and f"{out}: {len(times)} frames of 32x32" in said
    assert times == pytest.approx([float(moment.time) for moment in moments], abs=0.001)

    sound, original = packets_of(out), packets_of(path)
    assert bool(sound) == bool(original) == (rows[number]["audio"] != "-")
    if not sound:
        return
    end = times[-1] + float(moments[-1].duration)
    assert min(original[-1][0] - begin, end) - interval - 0.15 < sound[-1][0] < end + 0.001
    if "sound copied" in said:
        known: dict[bytes, list[float]] = {}
        for time, content in original:
            known.setdefault(content, []).append(time - begin)
        for time, content in sound:
            assert min(abs(time - other) for other in known[content]) < 0.005
