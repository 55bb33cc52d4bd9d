"""A part of the work for one of several machines: shard number k goes to slice k mod N, whoever runs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from data_prep.locks import FOLDER
from live2diff.errors import UsageError

_NOTE = "slices"  # beside the locks: how many slices there are, for the words of `--merge`


@dataclass(frozen=True)
class Slice:
    """Slice `index` of `count`, from 0, as a SLURM array counts with --array=0-(N-1)."""

    index: int
    count: int

    def takes(self, number: int) -> bool:
        return number % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_slice(text: str) -> Slice:
    """`"2/16"`. Raises `UsageError`."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if not match or int(match[1]) >= int(match[2]):
        raise UsageError(f"--slice {text}: write I/N, I from 0 to N - 1, like 0/4 to 3/4")
    return Slice(int(match[1]), int(match[2]))


def note_slices(out: Path, part: Slice) -> None:
    """Remember how the dataset is sliced until it is complete."""
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    (out / FOLDER / _NOTE).write_text(f"{part.count}\n", encoding="utf-8")


def noted_slices(out: Path) -> int | None:
    """How many slices the last one knew of; None if there were none."""
    try:
        return int((out / FOLDER / _NOTE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
