"""Processor time by stage of a child's work: what a speed-up would have to aim at."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Clock:
    """Adds up seconds per stage. A stage within another counts for itself only."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = time.process_time()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time spent inside counts for `name`."""
        self._switch()
        self._running.append(name)
        try:
            yield
        finally:
            self._switch()
            self._running.pop()

    def timed(self, name: str, work: Callable[..., None]) -> Callable[..., None]:
        """`work`, each call of which counts for `name`."""

        def call(*arguments: object) -> None:
            with self.stage(name):
                work(*arguments)

        return call

    def seconds(self) -> dict[str, float]:
        """Seconds by stage so far."""
        return {name: round(value, 3) for name, value in self._seconds.items()}

    def _switch(self) -> None:
        now = time.process_time()
        if self._running:
            self._seconds[self._running[-1]] += now - self._since
        self._since = now
