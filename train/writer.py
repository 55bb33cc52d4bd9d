"""Slow writing off the training thread: one job at a time, whose error comes out where it can be acted on."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class BackgroundWriter:
    """Runs jobs one after the other in a thread of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._job: Future[None] | None = None

    def submit(self, job: Callable[..., None], *arguments: Any) -> None:
        """Start `job`; the one before is waited for first. Raises what that one raised."""
        self.wait()
        self._job = self._pool.submit(job, *arguments)

    def check(self) -> None:
        """Raise what the last job raised, if it is done; never waits."""
        if self._job is not None and self._job.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the last job. Raises what it raised, once."""
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def close(self) -> None:
        """Finish the last job, whatever becomes of it."""
        self._pool.shutdown()
