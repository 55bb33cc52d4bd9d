"""A recorded session comes out again bit for bit, changes included; what does not is said."""

from __future__ import annotations

import json
import os
import shutil
import signal

import numpy as np
import pytest

from live2diff.cli import main
from live2diff.stream.engine import Stream
from live2diff.stream.session import Session
from tests.interop.lora.files import ATTENTION, MOTION, diffusers_peft, random_pairs, save
from tests.stream.media import packets_of, pictures_of, write
from tests.stream.test_files import at_frame, stream


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three scenes, one of them at rest."""
    rng = np.random.default_rng(0)
    moving = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(24)]
    rest = [np.full((48, 64, 3), 90, np.uint8)] * 8
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write(path, [*moving[:14], *rest, *moving[14:]], sound="aac")


@pytest.fixture(scope="module")
def recorded(export, clip, tmp_path_factory):
    """Everything that can change, changes."""
    from live2diff.model.build import load_model

    folder = tmp_path_factory.mktemp("recorded")
    lora = folder / "ink.safetensors"
    save(diffusers_peft(random_pairs(load_model(export), rf"{MOTION}|{ATTENTION}")), lora)
    words = [
        "--prompt", "a street", "--prompt-at", "t=0.4s: snow", "--blend", "3", "--lora", f"{lora}:0.5",
        "--lora-at", "frame=12: ink=1.2", "--on-cut", "rewarm", "--similar-frame-skip", "0.98",
        "--seed", "7", "--record", str(folder / "session"),
    ]  # fmt: skip
    assert stream(export, clip, folder / "out.mkv", *words) == 0
    return folder


def replay(folder, *words):
    return main(["stream", "replay", str(folder), *words])


def test_a_session_comes_out_again(recorded, tmp_path, capsys):
    out = tmp_path / "again.mkv"
    assert replay(recorded / "session", "--output", str(out)) == 0
    assert "32 of 32 recorded frames came out again, bit for bit" in capsys.readouterr().out
    first, again = pictures_of(recorded / "out.mkv"), pictures_of(out)
    assert len(again) == 32 and all(map(np.array_equal, first, again))
    assert not packets_of(out)


def test_it_says_what_was_done(recorded):
    log = [json.loads(line) for line in (recorded / "session/log.jsonl").read_text().splitlines()]
    changes = [line["change"] for line in log if "change" in line]
    assert [change["memory"] for change in changes].count("restart") >= 1  # the cuts
    assert {"ink": 1.2} in [change["loras"] for change in changes]
    assert "snow" in [change["prompt"] for change in changes]
    session = Session(recorded / "session")
    assert session.setup().seed == 7 and session.frames == session.outputs == 32


def test_without_an_output_it_only_compares(recorded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert replay(recorded / "session") == 0
    assert list(tmp_path.iterdir()) == []
    assert "no output: 32 frames" in capsys.readouterr().out


def test_another_change_comes_out_different(recorded, tmp_path, capsys):
    shutil.copytree(recorded / "session", tmp_path / "session")
    log = tmp_path / "session/log.jsonl"
    log.write_text(log.read_text().replace('"snow"', '"rain"'))
    assert replay(tmp_path / "session") == 3
    said = capsys.readouterr().err.splitlines()[-1]
    assert (
        said.startswith(f"error: {tmp_path / 'session'}: frame ") and "different from the recording" in said
    )


def test_another_model_is_named(recorded, tmp_path, capsys):
    from omegaconf import OmegaConf

    from live2diff.config import compose
    from live2diff.model.build import build

    config = OmegaConf.to_container(compose("train", ["data.path=none"]).model)
    build(config, seed=1).save(tmp_path / "other")
    assert replay(recorded / "session", "--model", str(tmp_path / "other")) == 3
    assert "unet of" in capsys.readouterr().err


def test_what_came_before_a_kill_can_be_played(recorded, tmp_path, capsys):
    shutil.copytree(recorded / "session", tmp_path / "session")
    log = tmp_path / "session/log.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[: len(lines) // 2]) + lines[-1][:10])
    assert replay(tmp_path / "session") == 0
    assert "recorded frames came out again, bit for bit" in capsys.readouterr().out


def test_a_killed_session_plays_until_the_kill(export, clip, tmp_path, capsys):
    """kill -9: nothing is closed, nothing flushed by us."""
    child = os.fork()
    if child == 0:
        push = Stream.push
        calls = []

        def dying(self, frame):
            calls.append(None)
            if len(calls) == 20:
                os.kill(os.getpid(), signal.SIGKILL)
            return push(self, frame)

        Stream.push = dying
        stream(export, clip, tmp_path / "out.mp4", "--record", str(tmp_path / "session"))
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert replay(tmp_path / "session") == 0
    said = capsys.readouterr().out
    assert "18 of 18 recorded frames" in said  # of 19 denoised, one was in the pipeline


@pytest.mark.parametrize(
    ("file", "content", "code", "words"),
    [
        ("session.json", "{}", 3, "is damaged"),
        ("session.json", "[1", 3, "is damaged"),
        ("session.json", '{"format": 99}', 3, "update live2diff"),
        ("log.jsonl", "nothing\n", 3, "is damaged"),
        ("log.jsonl", '{"frame": ["1/0", "1"]}\n', 3, "is damaged"),
        ("log.jsonl", '{"change": {"colour": "red"}}\n', 3, "is damaged"),
        ("frames.mkv", "none", 3, "frames.mkv"),
        ("session.json", None, 2, "is no recorded session"),
    ],
)
def test_damaged_sessions(recorded, tmp_path, capsys, file, content, code, words):
    shutil.copytree(recorded / "session", tmp_path / "session")
    if content is None:
        (tmp_path / "session" / file).unlink()
    else:
        (tmp_path / "session" / file).write_text(content)
    assert replay(tmp_path / "session") == code
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def test_a_session_is_not_written_over(export, clip, recorded, tmp_path, capsys):
    words = ["--record", str(recorded / "session")]
    assert stream(export, clip, tmp_path / "out.mp4", *words) == 2
    assert "is not an empty folder" in capsys.readouterr().err


def test_a_signal_leaves_a_session_that_plays(export, clip, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "session"
    with monkeypatch.context() as patch:
        patch.setattr(Stream, "push", at_frame(12, lambda: os.kill(os.getpid(), signal.SIGTERM)))
        assert stream(export, clip, tmp_path / "out.mp4", "--record", str(folder)) == 143
    assert replay(folder) == 0
    assert "11 of 11 recorded frames" in capsys.readouterr().out


def test_what_replay_needs_is_said(capsys):
    assert replay("nowhere") == 2
    assert main(["stream", "replay"]) == 2
    assert "say which session" in capsys.readouterr().err
