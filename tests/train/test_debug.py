"""The debug group: a quick look at a run, which leaves no checkpoint and can be repeated."""

from __future__ import annotations

import csv

import pytest

from live2diff.cli import main
from live2diff.runs import checkpoints
from tests.train.runs import FAST
from tests.train.shards import make_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=2, clips_per_shard=4)


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_one_batch_is_one_update_every_time(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["train", *FAST, f"data.path={dataset}", "debug=one_batch"]) == 0
        assert "no model was kept" in capsys.readouterr().out
        folder = tmp_path / "outputs/debug/train"
        assert [row["update"] for row in rows(folder / "metrics.csv")] == ["1"]
        assert checkpoints(folder) == []


def test_overfitting_sees_the_same_clips_again_and_the_loss_falls(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ["trainer.updates=20", "trainer.log_every=1", "trainer.log_samples=true"]
    more = ["trainer.overfit=2", "trainer.trainable=[all]", "data.workers=0"]
    words = [*FAST, f"data.path={dataset}", "debug=overfit", *settings, *more]
    assert main(["train", *words]) == 0
    folder = tmp_path / "outputs/debug/train"
    seen = rows(folder / "samples/rank-0000.csv")
    assert len({row["key"] for row in seen}) == 2 and len(seen) == 40
    losses = [float(row["loss"]) for row in rows(folder / "metrics.csv") if row["loss"]]
    assert len(losses) == 20
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5]), losses
    assert checkpoints(folder) == []


def test_the_profiler_writes_into_the_run(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [*FAST, f"data.path={dataset}", "debug=profiler", "trainer.updates=2"]
    assert main(["train", *words]) == 0
    (table,) = (tmp_path / "outputs/debug/train").glob("*profile.txt")
    assert table.name == "fit-profile.txt" and "run_training_batch" in table.read_text()
