"""Ctrl-C and TERM end a run cleanly: the update in work is finished, a checkpoint saved, then it stops."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

import lightning

from train.progress import update_is_complete

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopOnSignal(lightning.Callback):
    """Catches the signals within `with StopOnSignal() as stop`; as a callback, it stops the trainer.

    The handler only sets a flag; saving inside a signal handler can hang or tear a file.

    Attributes:
        received: the signal's number, or None. A second Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> StopOnSignal:
        self._previous = {number: signal.getsignal(number) for number in SIGNALS}
        self._install()
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _install(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.received = number
        # Not print: the signal may have come in the middle of one.
        os.write(2, b"stopping after this update; Ctrl-C once more to stop at once\n")

    def on_train_start(self, *_: Any) -> None:
        # Lightning has put a handler of its own for TERM over ours; it would end the run unsaved.
        self._install()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        # Ranks must agree, or one would wait for ever in a collective that the others left.
        if update_is_complete(trainer) and trainer.strategy.reduce_boolean_decision(
            self.received is not None, all=False
        ):
            trainer.should_stop = True
