"""A recorded session comes out again bit for bit, changes included; what does not is said."""

from __future__ import annotations

import json
import os
import shutil
import signal

import numpy as np
import pytest

from live2diff.cli import main
from live2diff.errors import DataError
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


DEEP = "[" * 100_000
DAMAGED = [
    ("session.json", "[1", "is damaged"),
    ("session.json", "[]", "expected a table of keys"),
    ("session.json", DEEP, "is damaged"),
    ("session.json", '{"format": 99}', "update live2diff"),
    ("session.json", "{}", "update live2diff"),
    ("session.json", "\udc80", "is damaged"),
    ("log.jsonl", "nothing\n", "is damaged"),
    ("log.jsonl", "5\n", "expected a table of keys"),
    ("log.jsonl", "NaN\n", "NaN is no number"),
    ("log.jsonl", DEEP + "\n", "is damaged"),
    ("log.jsonl", "{}\n", "is not one of frame, out, change"),
    ("log.jsonl", '{"frame": ["1/0", "1"]}\n', "expected a fraction"),
    ("log.jsonl", '{"frame": ["1e10000000000", "1"]}\n', "expected a fraction"),
    ("log.jsonl", '{"frame": ["-1", "1"]}\n', "expected a fraction"),
    ("log.jsonl", '{"frame": ["9999999999999999999", "1"]}\n', "expected a fraction"),
    ("log.jsonl", '{"frame": ["0"]}\n', "expected time and duration"),
    ("log.jsonl", '{"frame": [0, 1]}\n', "expected time and duration"),
    ("log.jsonl", '{"frame": ["1", "1"]}\n{"frame": ["1", "1"]}\n', "shown before the one before"),
    ("log.jsonl", '{"out": 5}\n', "expected a hash"),
    ("log.jsonl", '{"change": 5}\n', "expected a table of keys"),
    ("log.jsonl", '{"change": {"colour": "red"}}\n', "unknown key 'colour'"),
    ("log.jsonl", '{"change": {"prompt": 5}}\n', "prompt=5; expected null or a text"),
    ("log.jsonl", '{"change": {"prompt": "\\ud800"}}\n', "expected null or a text"),
    ("log.jsonl", '{"change": {"blend": 1e9}}\n', "expected 0 to 1000000"),
    ("log.jsonl", '{"change": {"blend": 3, "memory": "restart"}}\n', "expected 0 with memory=restart"),
    ("log.jsonl", '{"change": {"memory": "burn"}}\n', "expected one of keep, rewarm, restart"),
    ("log.jsonl", '{"change": {"loras": {"ink": "much"}}}\n', "expected numbers by name"),
    ("log.jsonl", '{"change": {"loras": {"blot": 1}}}\n', "changes a LoRA 'blot'"),
    ("frames.mkv", "none", "frames.mkv"),
]
# Keys of session.json, with a dot for one in its setup, and what they are made to hold.
WRONG = [
    ("rate", ["0", "1/90000"]), ("rate", ["25", "0"]), ("rate", ["-25", "1/90000"]), ("rate", [25, 1]),
    ("rate", ["25"]), ("rate", ["1e10000000000", "1/90000"]), ("rate", None), ("device", 5),
    ("device", "banana"), ("threads", 0), ("threads", "two"), ("threads", True), ("identity", 5),
    ("identity", {"weights": 5}), ("identity", {"weights": {"unet": 5}}), ("machine", 5),
    ("setup", 5), ("setup", []), ("setup", None), ("setup", {}), ("setup.colour", "red"), ("setup.export", 5),
    ("setup.export", "a\0b"),
    ("setup.export", "a\nb"), ("setup.export", "a" * 5000), ("setup.prompt", None), ("setup.prompt", 5),
    ("setup.steps", "30,40"), ("setup.steps", [30.5]), ("setup.steps", [40, 30]), ("setup.steps", [10**30]),
    ("setup.steps", []), ("setup.strength", "half"), ("setup.strength", 7), ("setup.strength", 0.001),
    ("setup.size", [32]), ("setup.size", [30, 32]), ("setup.size", [10**30, 8]), ("setup.size", "32x32"),
    ("setup.seed", -1), ("setup.seed", 1.5), ("setup.seed", 10**40), ("setup.noise", "loud"),
    ("setup.loras", 5), ("setup.loras", [["a"]]), ("setup.loras", [["a", "b"]]),
    ("setup.live_loras", "yes"), ("setup.similar_frame_skip", 2), ("setup.similar_frame_skip", float("nan")),
    ("setup.mask", "bidirectional"), ("setup.device", "banana"), ("setup.dtype", "fp64"),
    ("setup.switches", 5), ("setup.switches", {"compile": "eager"}), ("setup.switches", {"kernel": 5}),
    ("setup.switches", {"speed": True}),
]  # fmt: skip


def copied(recorded, tmp_path):
    """The session, with nothing to compare: what is wrong with it must show without."""
    return shutil.copytree(recorded / "session", tmp_path / "session")


def refused(folder, capsys) -> str:
    assert replay(folder) == 3
    *before, said = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: {folder}") and "Traceback" not in "".join(before), (before, said)
    return said


@pytest.mark.parametrize(("file", "content", "words"), DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_sessions(recorded, tmp_path, capsys, file, content, words):
    folder = copied(recorded, tmp_path)
    (folder / file).write_text(content, errors="surrogateescape")
    assert words in refused(folder, capsys)


@pytest.mark.parametrize(("key", "value"), WRONG, ids=[f"{key}={str(value)[:20]}" for key, value in WRONG])
def test_hostile_sessions(recorded, tmp_path, capsys, key, value):
    folder = copied(recorded, tmp_path)
    facts = json.loads((folder / "session.json").read_text())
    group, _, name = key.rpartition(".")
    (facts[group] if group else facts)[name] = value
    (folder / "session.json").write_text(json.dumps(facts))
    refused(folder, capsys)


def test_no_session_at_all(tmp_path, capsys):
    assert replay(tmp_path) == 2
    assert "is no recorded session" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"threads": 7}, ["threads was 7, now 1"]),
        ({"gpu": "NVIDIA H200"}, ["device was 'NVIDIA H200', now cpu"]),
        (
            {"machine": {"cpu": "Z\n80", "versions": {"torch": "0.1"}}},
            ["processor was 'Z\\n80', now ", "torch was '0.1', now "],
        ),
        ({"machine": {"versions": 5}}, ["torch was None"]),
        ({}, ["device, threads and versions are those of then, the session is not"]),
    ],
)
def test_what_is_not_as_it_was_is_named(recorded, tmp_path, changes, words):
    """On the machine that recorded it, with a session that says it was another."""
    folder = copied(recorded, tmp_path)
    facts = json.loads((folder / "session.json").read_text())
    here = {key: facts[key] for key in ("device", "gpu", "threads", "machine")} | {"threads": 1}
    (folder / "session.json").write_text(json.dumps({**facts, "threads": 1, **changes}))
    with pytest.raises(DataError, match="frame 0 came out different") as error:
        Session(folder).check(0, np.zeros((32, 32, 3), np.uint8), here)
    assert all(word in str(error.value) for word in words)
    if set(changes) <= {"threads"}:
        assert str(error.value).count(" was ") == len(changes)


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
