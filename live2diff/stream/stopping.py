"""Ctrl-C, TERM and a closed terminal end a stream between two frames, so that what is written stays whole."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stop:
    """Notes `SIGNALS` within `with Stop() as stop`; the loop asks. A second Ctrl-C interrupts at once.

    Python hands signals to the main thread only: elsewhere nothing is noted.

    Attributes:
        signal: the number of the first signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> Stop:
        self._before = _replace_handlers(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        _restore_handlers(self._before)

    @property
    def exit_code(self) -> int:
        """What a command stopped so ends with; 0 when nothing came."""
        return 0 if self.signal is None else 128 + self.signal

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal == number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is None:
            self.signal = number
            os.write(
                2, b"stopping after this frame; Ctrl-C once more to stop at once\n"
            )  # print may be at work


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let no signal in while a file gets its end and its name."""
    before = _replace_handlers(signal.SIG_IGN)
    try:
        yield
    finally:
        _restore_handlers(before)


def _replace_handlers(handler: object) -> dict[int, object]:
    if threading.current_thread() is not threading.main_thread():
        return {}
    heard = [
        number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN
    ]  # nohup, a job with &
    return {number: signal.signal(number, handler) for number in heard}  # pyright: ignore[reportArgumentType]


def _restore_handlers(handlers: dict[int, object]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)  # pyright: ignore[reportArgumentType]
