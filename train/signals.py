"""Signals that end a run cleanly. Only flags are set here; `train.stopping` acts on them between two updates.

Imports nothing heavy: the handlers must stand before torch is loaded, or a signal during those seconds would
kill the process.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType
from typing import Any

# Ctrl-C; a scheduler's request to end; a scheduler's warning before the time limit (sbatch --signal).
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Signals:
    """Catches `SIGNALS` within `with Signals() as signals`.

    Attributes:
        received: numbers of the signals that came, in order, each once. A second Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self.received: list[int] = []

    def __enter__(self) -> Signals:
        self._previous = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            signal.signal(number, self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number in self.received:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        first = not self.received
        self.received.append(number)
        if first:  # not print: the signal may have come in the middle of one
            os.write(2, b"stopping after this update; Ctrl-C once more to stop at once\n")


@contextmanager
def held_back() -> Iterator[None]:
    """Signals that come meanwhile are delivered afterwards. A process started meanwhile never gets them.

    Schedulers and terminals signal every process of a run. Its main process decides what follows, and until
    the update is finished it needs its helpers.
    """
    resource_tracker.ensure_running()  # started with the first helper, it would let the signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
