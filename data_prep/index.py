"""`index.parquet`: a row per clip, per clip that a filter dropped, and per input that gave none.

Rows stand in the order of the work list. The same dataset gives the same bytes: rows are grouped by number,
not by time or memory, and nothing of the machine is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from live2diff.files import staged_file

_ROW_GROUP = 20_000
# Column -> type, and where the value is found in a record; the rest is set by `_rows`.
_CLIP = {
    "key": ("string", "key"),
    "caption": ("string", "caption"),
    "caption_source": ("string", "caption_source"),
    "shot": ("int32", "shot"),
    "clip": ("int32", "clip"),
    "start_s": ("float64", "span_s", 0),
    "end_s": ("float64", "span_s", 1),
    "first_frame": ("int64", "frame_range", 0),
    "stop_frame": ("int64", "frame_range", 1),
    "frames": ("int32", "frames"),
    "repeated": ("int32", "repeated"),
    "fps": ("float64", "fps"),
    "width": ("int32", "size", 0),
    "height": ("int32", "size", 1),
    "fingerprint": ("string", "scores", "fingerprint"),
}
_SOURCE = {
    "uri": ("string", "uri"),
    "source_id": ("string", "id"),
    "sha1": ("string", "sha1"),
    "bytes": ("int64", "bytes"),
    "source_frames": ("int64", "frames_decoded"),
    "source_duration_s": ("float64", "duration_s"),
    "source_fps": ("float64", "fps"),
    "source_width": ("int32", "size", 0),
    "source_height": ("int32", "size", 1),
    "rotation": ("int32", "rotation"),
    "codec": ("string", "codec"),
    "pixel_format": ("string", "pixel_format"),
    "transfer": ("int32", "transfer"),
    "hdr": ("bool", "hdr"),
    "interlaced": ("bool", "interlaced"),
    "damage": ("string", "damage"),
}
_PLACE = {"kind": "string", "split": "string", "shard": "string", "reason": "string"}
_DUPLICATE = {"duplicate_of": "string", "duplicate_distance": "int32"}


def write_index(
    path: Path,
    side_cars: Iterable[Mapping[str, Any]],
    scores: Iterable[str],
    duplicates: Mapping[str, tuple[str, int]],
) -> None:
    """Write the index of a dataset to `path`.

    Args:
        side_cars: of its shards, in order.
        scores: names of the numeric scores; each gets a column `score_NAME`.
        duplicates: key -> (key of the clip that it nearly repeats, distance in bits).
    """
    names = sorted(scores)
    flat = {name: kind for name, (kind, *_) in {**_SOURCE, **_CLIP}.items()}
    schema = pa.schema(
        {
            **_PLACE,
            **flat,
            **{f"score_{name}": "float64" for name in names},
            **_DUPLICATE,
        }.items()
    )
    rows = (row for side_car in side_cars for row in _rows(side_car, names, duplicates))
    with staged_file(path) as stage, pq.ParquetWriter(stage, schema, compression="zstd") as writer:
        while group := list(islice(rows, _ROW_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _rows(
    side_car: Mapping[str, Any], scores: list[str], duplicates: Mapping[str, tuple[str, int]]
) -> Iterator[dict[str, Any]]:
    """The rows of one shard, input by input: clips kept and dropped in their order, then the rejection."""
    records = sorted(
        [*side_car["records"], *side_car["dropped"]], key=lambda record: (record["shot"], record["clip"])
    )
    by_source: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_source.setdefault(record["source"]["sha1"], []).append(record)
    for item in side_car["inputs"]:
        place = {"split": side_car["split"]}
        source = _pick(_SOURCE, {**item, "id": item["sha1"] and item["sha1"][:12]})
        # An input that repeats another one has no clips of its own.
        for record in by_source.get(item["sha1"], []) if item["clips"] or item["dropped"] else ():
            other, distance = duplicates.get(record["key"], (None, None))
            yield {
                **place,
                **source,
                **_pick(_CLIP, record),
                **{f"score_{name}": record["scores"].get(name) for name in scores},
                "kind": "dropped" if record["dropped"] else "clip",
                "shard": None if record["dropped"] else side_car["shard"],
                "reason": record["dropped"],
                "duplicate_of": other,
                "duplicate_distance": distance,
            }
        if item["rejected"] is not None:
            yield {**place, **source, "kind": "rejected", "reason": item["rejected"]}


def _pick(columns: Mapping[str, tuple], record: Mapping[str, Any]) -> dict[str, Any]:
    row = {}
    for name, (_, *path) in columns.items():
        value: Any = record
        for step in path:
            value = value.get(step) if isinstance(value, Mapping) else value[step] if value else None
        row[name] = value
    return row
