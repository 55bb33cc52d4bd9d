"""What a video is translated with: its caption, and the trigger words of a fine-tuned image model.

Captions come from a table, else from the text beside the video or in the dataset. The paper's are of the
middle frame; `live2diff eval caption` writes such a table.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from live2diff.errors import UsageError
from live2diff.eval.clips import Clip, open_clip
from live2diff.files import staged_file

Position = Literal["prefix", "suffix"]
POSITIONS: tuple[Position, ...] = ("prefix", "suffix")

_LARGEST = 64 << 20  # bytes of a table
_LONGEST = 2000  # characters of a caption; the text encoder reads 77 tokens
_COLUMNS = ("name", "caption")


def prompt(caption: str, trigger: str, position: Position) -> str:
    """The caption with the trigger words before or after it, joined by a comma."""
    parts = [trigger, caption] if position == "prefix" else [caption, trigger]
    return ", ".join(filter(None, (part.strip() for part in parts)))


def captions_of(clips: Sequence[Clip], table: str | None) -> tuple[dict[str, str | None], str]:
    """The caption of every clip by name, None where there is none; and where they come from, for a signature.

    Raises:
        UsageError: the table cannot be read.
    """
    if table is not None:
        rows = read_table(Path(table))
        return {clip.name: rows.get(clip.name) for clip in clips}, f"table {_hash(Path(table))}"
    found = {clip.name: clip.caption for clip in clips}
    return found, "beside the videos" if any(found.values()) else "none"


def read_table(path: Path) -> dict[str, str]:
    """Captions by name from a CSV file with the columns name and caption. Raises UsageError."""
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"captions={path}: is larger than {_LARGEST >> 20} MiB")
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except FileNotFoundError as error:
        raise UsageError(f"captions={path}: no such file; live2diff eval caption writes one") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"captions={path}: cannot be read as CSV ({error})") from error
    captions = {}
    for number, row in enumerate(rows, start=1):
        name, caption = (row.get(column) for column in _COLUMNS)
        if not name or caption is None or len(caption) > _LONGEST:
            raise UsageError(
                f"captions={path}: row {number} has no name or caption, or one longer than {_LONGEST} "
                f"characters; the header is {','.join(_COLUMNS)}"
            )
        captions[name] = " ".join(caption.split())
    return captions


def write_table(path: Path, captions: Mapping[str, str]) -> None:
    """Write what `read_table` reads, whole or not at all."""
    with staged_file(path) as stage, open(stage, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(_COLUMNS)
        table.writerows(captions.items())


def middle_frame(address: str) -> np.ndarray:
    """The picture in the middle of a clip, uint8 RGB (H, W, 3); of an even number, the later of the two.

    Raises:
        UsageError, DataError: it cannot be read, or not to its end.
    """
    with open_clip(address) as source:
        count = sum(1 for _ in source)  # what a container states is often wrong
        if source.damage is not None:
            raise source.damage
    with open_clip(address) as source:
        return next(frame.picture for number, frame in enumerate(source) if number == count // 2)


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
