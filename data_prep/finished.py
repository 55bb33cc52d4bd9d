"""A finished dataset, opened to look into: its index, its shards and their columns. Nothing is written.

It may have been made by anyone: paths in the index are not followed out of the dataset's folder.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.members import Place, list_members, read_member
from live2diff.columns import COLUMNS
from live2diff.errors import DataError, UsageError

_SHARD = re.compile(r"(train|val)/clips-(\d{6})\.tar")
_LARGEST_JSON = 1 << 28  # bytes
_MOST_ROWS = 50_000_000  # of an index; a small file may state any number

# What is used of dataset.json and of the index, and has to be of these types.
_MANIFEST = {
    "required": ["config", "totals", "splits"],
    "properties": {
        "config": {"type": "object"},
        "totals": {"type": "object", "additionalProperties": {"type": "number"}},
        "columns": {"type": "object", "additionalProperties": {"type": "object"}},
        "splits": {
            "type": "object",
            "additionalProperties": {
                "type": "object",
                "required": ["shards"],
                "properties": {
                    "shards": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["name"],
                            "properties": {"name": {"type": "string"}},
                        },
                    }
                },
                "additionalProperties": {"type": "number"},
            },
        },
    },
}
_TEXTS = "kind split shard key uri source_id reason caption caption_source codec damage duplicate_of"
_NUMBERS = (
    "shot clip start_s end_s first_frame stop_frame frames repeated fps width height duplicate_distance "
    "source_duration_s source_fps source_width source_height rotation hdr interlaced"
)
# Every clip has these.
_NEEDED = (
    "key uri shard source_id shot clip start_s end_s first_frame stop_frame frames repeated fps width height "
    "source_fps source_width source_height"
)


class Finished:
    """The dataset in `folder`.

    Attributes:
        folder: where it lies.
        manifest: `dataset.json`.
        index: `index.parquet` (docs/dataset.md describes its columns).

    Raises:
        UsageError: no dataset there.
        DataError: one that is not finished, or cannot be read.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        for name in ("dataset.json", "index.parquet"):
            if not (self.folder / name).is_file():
                raise _absent(self.folder, name)
        self.manifest = read_json(self.folder / "dataset.json", _MANIFEST)
        self.index = _read_index(self.folder / "index.parquet")
        self._members = lru_cache(maxsize=8)(list_members)

    def kind(self, kind: str) -> pa.Table:
        """The rows of one kind: "clip", "dropped" or "rejected"."""
        return self.index.filter(pc.equal(self.index.column("kind"), kind))

    @cached_property
    def clips(self) -> pa.Table:
        """The rows of the clips, in the order of the shards. Raises `DataError`."""
        clips = self.kind("clip")
        for name in _NEEDED.split():
            column = clips.column(name)
            least = pc.min(column).as_py() if name in ("frames", "fps") else None
            if column.null_count or (least is not None and not least > 0):
                raise DataError(f"{self.folder / 'index.parquet'}: holds clips without {name}; {_AGAIN}")
        return clips

    @cached_property
    def columns(self) -> list[str]:
        """Names of the columns beside the clips, such as "depth"; sorted."""
        names = (path.name[: -len("-000000.tar")] for path in self.folder.glob("*/*-??????.tar"))
        return sorted(set(names) & set(COLUMNS))

    def shard(self, row: dict[str, Any], column: str = "clips") -> Path:
        """The tar that holds `column` of the clip in the index row `row`."""
        match = _SHARD.fullmatch(str(row["shard"]))
        if not match:
            raise DataError(
                f"{self.folder / 'index.parquet'}: {row['key']}: no shard is named {row['shard']!r}"
            )
        return self.folder / match[1] / f"{column}-{match[2]}.tar"

    def place(self, row: dict[str, Any], suffix: str, column: str = "clips") -> tuple[Path, Place] | None:
        """Where the member KEY.`suffix` of the clip in `row` lies; None if there is none."""
        tar_path = self.shard(row, column)
        if not tar_path.is_file():
            return None
        place = self._members(tar_path).get(f"{row['key']}.{suffix}")
        return place and (tar_path, place)

    def member(self, row: dict[str, Any], suffix: str, column: str = "clips") -> bytes | None:
        """The bytes of that member."""
        found = self.place(row, suffix, column)
        return read_member(*found) if found else None


def numbers(rows: pa.Table, name: str) -> np.ndarray:
    """A column as float64 (N,), NaN where there is no value. Columns may have a million rows."""
    return rows.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)


def codes(rows: pa.Table, name: str) -> np.ndarray:
    """A column as int64 (N,): equal values have equal numbers, in the order of their first appearance."""
    encoded = pc.dictionary_encode(rows.column(name).combine_chunks(), null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)


def counts(rows: pa.Table, name: str) -> list[tuple[str, int]]:
    """The values of a column and how often each stands there, the most frequent first."""
    found = pc.value_counts(rows.column(name)).to_pylist()
    return sorted(
        ((str(one["values"]), one["counts"]) for one in found), key=lambda pair: (-pair[1], pair[0])
    )


def read_json(path: Path, schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A JSON object out of a dataset, of the form that a JSON Schema asks for. Raises `DataError`."""
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError("too large")
        data = json.loads(path.read_bytes())
        if not isinstance(data, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError, RecursionError) as error:
        words = str(getattr(error, "strerror", None) or error).splitlines()[0]
        raise DataError(f"{path}: cannot be read ({words}); get or make it again") from error
    for fault in faults(data, schema or {}):
        raise DataError(f"{path}: is not what it should be ({fault}); get or make it again")
    return data


def faults(data: Any, schema: Mapping[str, Any]) -> Iterator[str]:
    """What in `data` is against a JSON Schema, one line each."""
    from jsonschema import Draft202012Validator

    for error in Draft202012Validator(schema).iter_errors(data):
        where = "/".join(map(str, error.absolute_path))
        yield ": ".join(filter(None, (where, " ".join(error.message.split()))))[:200]


_AGAIN = "`live2diff data build` with the same arguments writes it again"


def _read_index(path: Path) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            kinds = {field.name: field.type for field in schema}
            scores = [name for name in kinds if name.startswith("score_")]
            for names, fits, what in (
                (_TEXTS.split(), _is_text, "text"),
                ([*_NUMBERS.split(), *scores], _is_number, "numbers"),
            ):
                for name in names:
                    if len(schema.get_all_field_indices(name)) != 1 or not fits(kinds[name]):
                        raise DataError(f"{path}: has no column {name} of {what}; {_AGAIN}")
            if file.metadata.num_rows > _MOST_ROWS:
                raise DataError(f"{path}: states {file.metadata.num_rows} rows; {_AGAIN}")
            return file.read()
    except (pa.ArrowException, OSError) as error:
        words = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({words}); {_AGAIN}") from error


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _absent(folder: Path, name: str) -> Exception:
    if not folder.is_dir():
        return UsageError(f"{folder}: no such folder; name a dataset that `live2diff data build` made")
    if not (folder / "plan.json").is_file():
        return UsageError(f"{folder}: is no dataset (no {name}); name one that `live2diff data build` made")
    return DataError(
        f"{folder}: is not finished (no {name}); run the same `live2diff data build` again to go on"
    )
