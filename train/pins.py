"""Checkpoints that other runs build on: a note beside each keeps it when its own run trains on.

    RUN/checkpoints/step-003000
    RUN/checkpoints/.used-step-003000-1a2b3c4d     holds the folder of the run that builds on it

The note lies beside the checkpoint: inside are the files of its manifest alone, and one that is damaged and
made again is still pinned. It stays when the other run is gone, which may have been moved; it may be removed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from live2diff.files import staged_file
from live2diff.runs import is_checkpoint


def pin(checkpoint: Path, run: Path) -> None:
    """Note that `run` builds on `checkpoint`, if it is one; a warning where that cannot be written."""
    user = str(run.resolve())
    note = checkpoint.with_name(f"{_prefix(checkpoint)}{hashlib.sha256(user.encode()).hexdigest()[:8]}")
    if note.exists() or not is_checkpoint(checkpoint):
        return
    try:
        with staged_file(note) as stage:
            stage.write_text(user + "\n", encoding="utf-8")
    except OSError as error:
        print(
            f"warning: {note}: cannot be written ({error.strerror}); {checkpoint.parents[1]} may remove "
            f"{checkpoint.name} when it trains on, which this run builds on: keep a copy of it",
            flush=True,
        )


def is_pinned(checkpoint: Path) -> bool:
    return any(checkpoint.parent.glob(f"{_prefix(checkpoint)}*"))


def _prefix(checkpoint: Path) -> str:
    return f".used-{checkpoint.name}-"
