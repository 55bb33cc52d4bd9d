"""What long work shows: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def quiet_libraries() -> None:
    """Leave the terminal to this project's own lines. Libraries still speak when something fails."""
    import logging
    import os
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")


# Plain lines come no closer than this, seconds: enough to see that work goes on, few enough for a log file.
_LINE_EVERY = 10.0


@contextmanager
def progress(label: str, total: int | None, unit: str = "frames") -> Iterator[Callable[[], None]]:
    """Show progress of `total` units of work; yields a function to call after each. None: total unknown."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{unit}, {{task.fields[speed]}} per second"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(label, total=total, speed="-")

            def move() -> None:
                bar.advance(task)
                bar.update(task, speed=f"{bar.tasks[task].speed or 0:.1f}")

            yield move
        return

    done, before, last = 0, 0, time.monotonic()

    def advance() -> None:
        nonlocal done, before, last
        done += 1
        passed = time.monotonic() - last
        if passed >= _LINE_EVERY:
            whole = f" of {total}" if total else ""
            speed = (done - before) / passed
            print(f"{label}: {done}{whole} {unit}, {speed:.1f} per second", file=sys.stderr, flush=True)
            before, last = done, time.monotonic()

    yield advance
    print(f"{label}: {done} {unit} done", file=sys.stderr, flush=True)
