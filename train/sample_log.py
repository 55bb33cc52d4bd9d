"""Which clip was trained when: RUN/samples/rank-0000.csv, one row a clip.

A resumed run drops the rows after its checkpoint, like metrics.csv.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning

from live2diff.files import staged_file
from train.progress import update_is_complete

COLUMNS = ("update", "key")


class SampleLog(lightning.Callback):
    """Appends the keys of every finished update.

    Args:
        run: folder of the run.
        done: updates done before this process started.
    """

    def __init__(self, run: Path, done: int):
        self._folder, self._done = run / "samples", done
        self._keys: list[str] = []  # of the micro-steps of the update in work

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._path = self._folder / f"rank-{trainer.global_rank:04d}.csv"
        lines = self._path.read_text().splitlines(keepends=True) if self._path.exists() else []
        rows = csv.DictReader(line for line in lines if line.endswith("\n"))  # a kill may have torn the last
        kept = [row for row in rows if int(row["update"]) <= self._done]
        with staged_file(self._path) as stage, open(stage, "w", newline="") as file:
            writer: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, outputs: Any, batch: Any, _: int
    ) -> None:
        self._keys += batch["key"]
        if update_is_complete(trainer):
            with open(self._path, "a", newline="") as file:
                csv.writer(file).writerows((trainer.global_step, key) for key in self._keys)
            self._keys.clear()
