"""What a run tells: metrics.csv, and lines (or a bar) on the terminal."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from live2diff.files import staged_file
from train.guard import FiniteGuard
from train.progress import micro_steps, update_is_complete
from train.throughput import COLUMNS as THROUGHPUT
from train.throughput import Throughput

VALIDATION = ("val_loss", "flicker")  # where the update was validated, see `train.validation`
COLUMNS = ("update", "micro_step", "loss", "skipped", *VALIDATION, *THROUGHPUT)


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
        # From the start there is nothing to keep: a run killed before its first checkpoint validates again.
        kept = [row for row in rows if int(row["update"]) <= self._resumed_at and self._resumed_at]
        with staged_file(self._path) as stage, open(stage, "w", newline="") as file:
            writer: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)
        self._started = True


class Report(lightning.Callback):
    """Loss and speed every `every` updates, and what a validation found, for loggers and the terminal.

    Args:
        guard: knows how many updates were passed over.
    """

    def __init__(self, every: int, throughput: Throughput, guard: FiniteGuard):
        self.every, self.throughput, self.guard = every, throughput, guard

    def setup(self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str) -> None:
        self.throughput.count(trainer, module)

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        found = _validation(trainer)
        if found:
            self._log(trainer, {"update": trainer.global_step, "micro_step": micro_steps(trainer), **found})
        self.throughput.start(trainer, module)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, *_: Any
    ) -> None:
        if not update_is_complete(trainer):
            return
        update, micro, found = trainer.global_step, micro_steps(trainer), _validation(trainer)
        if update % self.every and update != trainer.max_steps and not found:
            return
        loss, speed = float(trainer.callback_metrics["loss"]), self.throughput.read(trainer)
        counts = {"update": update, "micro_step": micro, "loss": loss, "skipped": self.guard.skipped}
        self._log(trainer, {**counts, **found, **speed})
        if trainer.is_global_zero:
            validated = f"  val_loss {found['val_loss']:.4f}" if "val_loss" in found else ""
            print(
                f"update {update}/{trainer.max_steps}  micro-step {micro}  loss {loss:.4f}{validated}  "
                f"{speed['clips_per_s']:.1f} clips/s",
                file=sys.stderr,
                flush=True,
            )

    def _log(self, trainer: lightning.Trainer, values: dict[str, float]) -> None:
        for logger in trainer.loggers:
            logger.log_metrics(values, step=int(values["update"]))


def _validation(trainer: lightning.Trainer) -> dict[str, float]:
    """What a validation at this very update found."""
    metrics = trainer.callback_metrics
    return {name: float(metrics[name]) for name in VALIDATION if name in metrics}
