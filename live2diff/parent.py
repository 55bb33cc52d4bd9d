"""A process that must not outlive the one that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys


def end_with(parent: int) -> bool:
    """Have the system kill this process when `parent`, the process that started it, is gone. Linux only.

    Returns:
        Whether the parent is still there: it may have died before this call.
    """
    if sys.platform != "linux":
        return True
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    return os.getppid() == parent
