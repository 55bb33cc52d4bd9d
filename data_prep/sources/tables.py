"""Rows of a table that lists videos: CSV, TSV, JSON lines or Parquet. A table is not to be trusted."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from data_prep.sources.places import open_place, reason, suffix_of
from live2diff.errors import Live2DiffError, UsageError

_ROW_CHARS = 1 << 20  # a longer row is no row of a list of videos
_BATCH = 1024  # rows of a Parquet file in memory at a time


@dataclass(frozen=True, slots=True)
class Row:
    """A row's number, from 1 and without the header; its path and caption, or ""."""

    number: int
    path: str
    caption: str


def read_table(
    place: str, path_column: str, caption_column: str, note: Callable[[str], None]
) -> Iterator[Row]:
    """The rows of the table at `place`; its suffix says what kind it is.

    A table without the caption column is read all the same, and `note` told.

    Raises:
        UsageError: the table or a row of it cannot be read; file and row are named.
    """
    number = 0
    try:
        with open_place(place) as file:
            for row in READERS[suffix_of(place)](file, (path_column, caption_column)):
                if number == 0 and path_column not in row:
                    known = ", ".join(map(repr, list(row)[:20]))
                    raise UsageError(
                        f"{place}: no column {path_column!r}, only {known}; set path_column=NAME"
                    )
                if number == 0 and caption_column not in row:
                    note(f"{place}: no column {caption_column!r}, so no captions; set caption_column=NAME")
                path, caption = (_text(row, column) for column in (path_column, caption_column))
                number += 1
                yield Row(number, path, caption)
    except Live2DiffError:
        raise
    except Exception as error:  # csv, json, pyarrow and file systems raise many kinds
        raise UsageError(f"{place}: row {number + 1} cannot be read: {reason(error)}") from error


def _text(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if not isinstance(value, str | None):
        raise ValueError(f"its {column} is no text, but {type(value).__name__}")
    if value and len(value) > _ROW_CHARS:
        raise ValueError(f"its {column} is longer than {_ROW_CHARS} characters")
    return (value or "").strip()


def _comma(file: IO[bytes], columns: tuple[str, str]) -> Iterator[dict[str, Any]]:
    return _separated(file, ",")


def _tab(file: IO[bytes], columns: tuple[str, str]) -> Iterator[dict[str, Any]]:
    return _separated(file, "\t")


def _separated(file: IO[bytes], delimiter: str) -> Iterator[dict[str, Any]]:
    rows = csv.reader(_lines(file), delimiter=delimiter)
    header = [name.strip() for name in next(rows, [])]
    for row in rows:
        if row:
            yield dict.fromkeys(header) | dict(zip(header, row, strict=False))


def _json_lines(file: IO[bytes], columns: tuple[str, str]) -> Iterator[dict[str, Any]]:
    for line in _lines(file):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError(f"it is no JSON object, but {type(row).__name__}")
            yield row


def _parquet(file: IO[bytes], columns: tuple[str, str]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    names = pyarrow.parquet.read_schema(file).names
    wanted = [name for name in columns if name in names]
    if columns[0] not in wanted:
        yield dict.fromkeys(names)
        return
    # As dictionaries, so that a giant text repeated in every row is held once.
    table = pyarrow.parquet.ParquetFile(file, read_dictionary=wanted)
    for batch in table.iter_batches(_BATCH, columns=wanted):
        for number in range(batch.num_rows):
            yield {name: batch.column(name)[number].as_py() for name in wanted}


def _lines(file: IO[bytes]) -> Iterator[str]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    while line := text.readline(_ROW_CHARS + 1):
        if len(line) > _ROW_CHARS:
            raise ValueError(f"it is longer than {_ROW_CHARS} characters")
        yield line


READERS = {
    ".csv": _comma,
    ".tsv": _tab,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
}
