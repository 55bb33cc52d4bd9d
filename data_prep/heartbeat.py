"""A child's sign of life: bytes to its parent while frames are decoded. Silent for long, it is killed.

A clock alone cannot tell a film of three hours from a file that hangs the decoder.
"""

from __future__ import annotations

import os
import time

_EVERY = 0.25  # seconds between two signs: a frame must cost no more than a look at the clock

_pipe: int | None = None
_last = 0.0


def start(pipe: int) -> None:
    """Send signs of life down the file descriptor `pipe` from now on."""
    global _pipe, _last
    _pipe, _last = pipe, time.monotonic()
    _send()


def beat() -> None:
    """A frame came out of the decoder. Does nothing in a process that did not `start`."""
    global _last
    if _pipe is None or time.monotonic() - _last < _EVERY:
        return
    _last = time.monotonic()
    _send()


def _send() -> None:
    assert _pipe is not None
    try:
        os.write(_pipe, b".")
    except BrokenPipeError:  # nobody waits for this child any more
        os._exit(os.EX_IOERR)
