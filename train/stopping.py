"""A signal ends a run cleanly: the update in work is finished, a checkpoint saved, then it stops."""

from __future__ import annotations

from typing import Any

import lightning

from train.progress import update_is_complete
from train.signals import Signals


class StopOnSignal(lightning.Callback):
    """Stops the trainer after the update in which a signal came, on all ranks at the same update."""

    def __init__(self, signals: Signals):
        self.signals = signals

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        # Ranks must agree, or one would wait for ever in a collective that the others left.
        if update_is_complete(trainer) and trainer.strategy.reduce_boolean_decision(
            bool(self.signals.received), all=False
        ):
            trainer.should_stop = True
