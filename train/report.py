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

COLUMNS = ("update", "micro_step", "loss", "clips_per_s")


class CsvLogger(Logger):
    """Appends to RUN/metrics.csv; a resumed run drops the rows after its checkpoint and goes on.

    Lightning's own starts the file anew.
    """

    def __init__(self, run: Path, resumed_at: int):
        super().__init__()
        self._path = run / "metrics.csv"
        self._resumed_at = resumed_at

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
        rows: list[dict[str, Any]] = [{key: metrics.get(key, "") for key in COLUMNS}]
        if self._resumed_at >= 0 and self._path.exists():
            with open(self._path, newline="") as file:
                kept = [dict(row) for row in csv.DictReader(file) if int(row["update"]) <= self._resumed_at]
            rows, mode = kept + rows, "w"
        else:
            mode = "w" if self._resumed_at >= 0 else "a"
        self._resumed_at = -1
        with open(self._path, mode, newline="") as file:
            writer: csv.DictWriter[str] = csv.DictWriter(file, COLUMNS)
            if mode == "w":
                writer.writeheader()
            writer.writerows(rows)


class Report(lightning.Callback):
    """Loss and speed every `every` updates, to the loggers and to the terminal."""

    def __init__(self, every: int, batch: int):
        self.every, self.batch = every, batch
        self._since = (0, 0.0)  # micro-steps and time of the last line

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._since = (trainer.fit_loop.total_batch_idx + 1, time.monotonic())

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, *_: Any
    ) -> None:
        update, micro = trainer.global_step, trainer.fit_loop.total_batch_idx + 1
        boundary = micro % trainer.accumulate_grad_batches == 0
        if not boundary or (update % self.every and update != trainer.max_steps):
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
