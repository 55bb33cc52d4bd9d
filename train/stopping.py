"""Ctrl-C and TERM end a run cleanly: the update in work is finished, a checkpoint saved, then it stops."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import lightning


class StopOnSignal(lightning.Callback):
    """The handler only sets a flag; saving inside a signal handler can hang or tear a file.

    Attributes:
        received: the signal's number, or None. A second Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        # Ranks must agree, or one would wait for ever in a collective that the others left.
        if trainer.strategy.reduce_boolean_decision(self.received is not None, all=False):
            trainer.should_stop = True
