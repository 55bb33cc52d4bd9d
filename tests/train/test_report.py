"""metrics.csv and Weights & Biases."""

from __future__ import annotations

import wandb

from tests.train.runs import run
from tests.train.shards import make_dataset
from train.report import CsvLogger


def test_a_resumed_log_drops_later_and_torn_rows(tmp_path):
    path = tmp_path / "metrics.csv"
    first = CsvLogger(tmp_path, 0)
    for update in (1, 2, 3):
        first.log_metrics({"update": update, "micro_step": update, "loss": 0.5, "clips_per_s": 1})
    with open(path, "a") as file:
        file.write("2")  # the kill came here
    second = CsvLogger(tmp_path, 2)
    second.log_metrics({"update": 3, "micro_step": 3, "loss": 0.25, "clips_per_s": 1})
    assert path.read_text().split() == [
        "update,micro_step,loss,val_loss,flicker,clips_per_s,data_wait,peak_memory_gb,tflops,mfu",
        "1,1,0.5,,,1,,,,",
        "2,2,0.5,,,1,,,,",
        "3,3,0.25,,,1,,,,",
    ]


def test_wandb_offline_writes_into_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    dataset = make_dataset(tmp_path, shards=1, clips_per_shard=2)
    run(dataset, tmp_path / "run", "logger=wandb", "trainer.updates=1")
    wandb.finish()
    name = (tmp_path / "run/wandb_id").read_text()
    (folder,) = (tmp_path / "run/wandb").glob("offline-run-*")
    assert folder.name.endswith(name)
    assert (folder / f"run-{name}.wandb").stat().st_size > 0
