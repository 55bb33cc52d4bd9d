"""Where a run's time goes: Lightning's profilers, writing into the run's folder."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.profilers import Profiler, PyTorchProfiler, SimpleProfiler


def find_profiler(kind: str | None, run: Path) -> Profiler | None:
    """What `trainer.profiler` means.

    `simple` times the parts of a step in RUN/fit-profile.txt; `pytorch` records every operation, there and as
    a trace for chrome://tracing; None measures nothing.
    """
    if kind is None:
        return None
    return (SimpleProfiler if kind == "simple" else PyTorchProfiler)(dirpath=run, filename="profile")
