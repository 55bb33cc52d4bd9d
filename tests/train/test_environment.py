"""RUN/environment.json: every start is noted, and nothing that should stay private."""

from __future__ import annotations

import json
import subprocess

from train.environment import git_state, note_start


def test_every_start_is_added_and_secrets_are_not(tmp_path):
    environ = {"SLURM_JOB_ID": "17", "WANDB_API_KEY": "hidden", "HF_TOKEN": "hidden", "WANDB_MODE": "offline"}
    note_start(tmp_path, ["data.path=http://me:hidden@host/clips", "name=a b"], environ)
    note_start(tmp_path, ["trainer.updates=2"], {})
    text = (tmp_path / "environment.json").read_text()
    first, second = json.loads(text)["starts"]
    assert "hidden" not in text
    assert first["command"] == "live2diff train data.path=http://host/clips 'name=a b'"
    assert first["variables"] == {"SLURM_JOB_ID": "17", "WANDB_MODE": "offline"}
    assert second["command"] == "live2diff train trainer.updates=2" and second["variables"] == {}
    assert first["versions"]["torch"] and first["cpu"] and first["gpus"] is not None


def test_a_damaged_file_is_begun_anew(tmp_path):
    for damage in ("{", '{"starts": 3}', "[]"):
        (tmp_path / "environment.json").write_text(damage)
        note_start(tmp_path, [], {})
        assert len(json.loads((tmp_path / "environment.json").read_text())["starts"]) == 1


def test_the_commit_and_whether_files_differ_from_it(tmp_path):
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert git_state(tmp_path) is None
    git("init", "-q")
    assert git_state(tmp_path) is None  # no commit yet
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-q", "-m", "one")
    assert git_state(tmp_path) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "new").write_text("two")
    state = git_state(tmp_path)
    assert state and state["dirty"]
