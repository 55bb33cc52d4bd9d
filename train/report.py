"""What a run tells: metrics.csv, and lines (or a bar) on the terminal."""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from live2diff.files import staged_file
from train.progress import micro_steps, update_is_complete

COLUMNS = ("update", "micro_step", "loss", "clips_per_s")


class CsvLogger(Logger):
    """Appends to RUN/metrics.csv; a resumed run drops the rows after its checkpoint and goes on.

    Lightning's own starts the file anew.
    """

    def __init__(self, run: Path, resumed_at: int):
        super().__init__()
        self._path = run / "metrics.csv"
        self._resumed_at = resumed_at
        self._started = False

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration stands in config.yaml."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if not self._started:
            self._start()
        with open(self._path, "a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow({key: metrics.get(key, "") for key in COLUMNS})

    def _start(self) -> None:
        """Write the header and the rows up to the checkpoint. A kill may have torn the last line."""
        lines = self._path.read_text().splitlines(keepends=True) if self._path.exists() else []
        rows = csv.DictReader(line for line in lines if line.endswith("\n"))
        kept = [row for row in rows if int(row["update"]) <= self._resumed_at]
        with staged_file(self._path) as stage, open(stage, "w", newline="") as file:
            writer: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)
        self._started = True


class Report(lightning.Callback):
    """Loss and speed every `every` updates, to the loggers and to the terminal."""

    def __init__(self, every: int, batch: int):
        self.every, self.batch = every, batch
        self._since = (0, 0.0)  # micro-steps and time of the last line

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._since = (micro_steps(trainer), time.monotonic())

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, *_: Any
    ) -> None:
        update, micro = trainer.global_step, micro_steps(trainer)
        due = update % self.every == 0 or update == trainer.max_steps
        if not due or not update_is_complete(trainer):
            return
        steps, start = self._since
        now = time.monotonic()
        speed = (micro - steps) * self.batch * trainer.world_size / max(now - start, 1e-9)
        self._since = (micro, now)
        loss = float(trainer.callback_metrics["loss"])
        values = {"update": update, "micro_step": micro, "loss": loss, "clips_per_s": round(speed, 3)}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=update)
        if trainer.is_global_zero:
            print(
                f"update {update}/{trainer.max_steps}  micro-step {micro}  loss {loss:.4f}  "
                f"{speed:.1f} samples/s",
                file=sys.stderr,
                flush=True,
            )
