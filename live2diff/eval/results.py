"""results.json: figures with their signatures, values by video and frame, what was skipped, and where it ran.

{"format": 2, "live2diff": "0.1.0", "created": null, "source": "DIR", "pred": "DIR or EXPORT",
 "figures": {"warp_error": {"signature": {"flow": "dis-medium", ...}, "mean": 0.1, "low": 0.09,
                            "high": 0.11, "unit": "", "better": "lower", "videos": 12}, ...},
 "videos": [{"name": "bear", "source": "DIR/bear", "source_hash": "9f...", "pred": "OUT/pred/bear.mp4",
             "frames": 80, "fps": 24.0, "caption": null, "values": {"warp_error": 0.1},
             "per_frame": {"warp_error": [null, 0.1]}}],
 "skipped": [{"name": "camel", "reason": "..."}],
 "environment": {...}}
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from live2diff import __version__
from live2diff.errors import DataError
from live2diff.files import write_json

FORMAT = 2
NAME = "results.json"

Better = Literal["lower", "higher"]
Signature = dict[str, str | int | float]

_LARGEST = 256 << 20  # bytes; ninety videos of an hour stay below
_LONGEST = 2000  # characters of a text


@dataclass(frozen=True)
class Figure:
    """One number of one metric.

    Attributes:
        signature: everything the number depends on; two figures compare only when theirs are equal.
        mean: over the values of the videos.
        low, high: 95 % percentile bootstrap interval of the mean; None where there is only one value.
        unit: "" for a pure number.
        videos: how many values the mean is over; 0 where it is not over videos (latency).
    """

    signature: Signature
    mean: float
    low: float | None
    high: float | None
    unit: str
    better: Better
    videos: int


@dataclass(frozen=True)
class VideoResult:
    """One pair of videos.

    Attributes:
        source, pred: where they lie, as `live2diff.eval.clips.open_clip` takes them.
        frames: how many of each were compared.
        fps: of the source, frames per second.
        caption: what it was translated with, where that is known.
        values: one number by figure; a figure that is not defined for the video is absent.
        per_frame: by figure, `frames` numbers; None where there is none. A number of two adjacent frames
            stands at the later one, one of three at the middle one.
        source_hash: of the source's frames that were compared, as they were decoded: two results compare only
            where these are equal. Paths say nothing, and the same frames may lie in another container.
    """

    name: str
    source: str
    source_hash: str
    pred: str
    frames: int
    fps: float
    caption: str | None
    values: dict[str, float]
    per_frame: dict[str, list[float | None]]


@dataclass(frozen=True)
class Skipped:
    """A video that was not measured, or not with every metric, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Results:
    """Everything `eval run` found out.

    Attributes:
        source: the folder or dataset of the sources, as given.
        pred: the folder of the outputs, or the export that made them, as given.
        created: ISO 8601, or None.
        environment: the machine and versions, see `live2diff.machine`.
        version: of live2diff.
    """

    source: str
    pred: str
    figures: dict[str, Figure]
    videos: list[VideoResult]
    skipped: list[Skipped] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    created: str | None = None
    version: str = __version__


def signature_text(signature: Mapping[str, str | int | float]) -> str:
    """One stable line: `key:value` in the order of the keys, joined by "|"."""
    return "|".join(f"{key}:{value}" for key, value in sorted(signature.items()))


def write(results: Results, path: str | Path) -> None:
    """Write results.json, whole or not at all."""
    data = {"format": FORMAT, "live2diff": results.version, **asdict(results)}
    del data["version"]
    write_json(path, data)


def read(path: str | Path) -> Results:
    """Read what `write` wrote. A folder is taken for the results.json in it.

    Raises:
        DataError: no such file, or one that is damaged, hostile or of another format.
    """
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    try:
        if path.stat().st_size > _LARGEST:
            raise _Wrong(f"is larger than {_LARGEST >> 20} MiB")
        data = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; live2diff eval run writes one") from error
    except _Wrong as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: is not a readable JSON file") from error
    try:
        return _results(data)
    except _Wrong as error:
        raise DataError(f"{path}: {error}; it is not a results.json of live2diff eval run") from error


class _Wrong(ValueError):
    """What is wrong with a file, without its name."""


def _results(data: Any) -> Results:
    table = _Table(data, "")
    number = table.get("format", int)
    if number != FORMAT:
        raise _Wrong(f"is of format {number}, and this version reads format {FORMAT}")
    figures = {name: _figure(value) for name, value in table.tables("figures").items()}
    return Results(
        source=table.get("source", str),
        pred=table.get("pred", str),
        figures=figures,
        videos=[_video(value, figures) for value in table.rows("videos")],
        skipped=[Skipped(row.get("name", str), row.get("reason", str)) for row in table.rows("skipped")],
        environment=table.get("environment", dict),
        created=table.get("created", str, optional=True),
        version=table.get("live2diff", str),
    )


def _figure(table: _Table) -> Figure:
    signature = table.get("signature", dict)
    for key, value in signature.items():
        if not isinstance(value, str | int | float) or isinstance(value, bool) or len(str(value)) > _LONGEST:
            raise _Wrong(f"{table.where}signature.{_short(key)} is neither a text nor a number")
    better = table.get("better", str)
    if better not in ("lower", "higher"):
        raise _Wrong(f"{table.where}better is neither lower nor higher")
    return Figure(
        signature=signature,
        mean=table.number("mean"),
        low=table.optional_number("low"),
        high=table.optional_number("high"),
        unit=table.get("unit", str),
        better=better,
        videos=table.count("videos"),
    )


def _video(table: _Table, figures: Mapping[str, Figure]) -> VideoResult:
    frames = table.count("frames")
    values, rows = table.table("values"), table.table("per_frame")
    for name in [*values.data, *rows.data]:
        if name not in figures:
            raise _Wrong(f"{table.where}values: {_short(name)} is none of the figures")
    per_frame = {}
    for name in rows.data:
        row = rows.get(name, list)
        if len(row) != frames:
            raise _Wrong(f"{rows.where}{name} holds {len(row)} values for {frames} frames")
        per_frame[name] = [None if value is None else _number(value, rows.where + name) for value in row]
    return VideoResult(
        name=table.get("name", str),
        source=table.get("source", str),
        source_hash=table.get("source_hash", str),
        pred=table.get("pred", str),
        frames=frames,
        fps=table.number("fps"),
        caption=table.get("caption", str, optional=True),
        values={name: values.number(name) for name in values.data},
        per_frame=per_frame,
    )


class _Table:
    """An untrusted JSON object; every reading is checked, and errors name the place."""

    def __init__(self, data: Any, where: str):
        if not isinstance(data, dict):
            raise _Wrong(f"{where.rstrip('.') or 'the file'} holds no table")
        self.data, self.where = data, where

    def get(self, key: str, kind: type, optional: bool = False) -> Any:
        value = self.data.get(key)
        if value is None and optional:
            return None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise _Wrong(f"{self.where}{_short(key)} is {'missing' if value is None else 'of another kind'}")
        if isinstance(value, str) and len(value) > _LONGEST:
            raise _Wrong(f"{self.where}{_short(key)} is longer than {_LONGEST} characters")
        return value

    def number(self, key: str) -> float:
        return _number(self.data.get(key), self.where + _short(key))

    def optional_number(self, key: str) -> float | None:
        return None if self.data.get(key) is None else self.number(key)

    def count(self, key: str) -> int:
        value = self.get(key, int)
        if value < 0:
            raise _Wrong(f"{self.where}{key} is negative")
        return value

    def table(self, key: str) -> _Table:
        return _Table(self.get(key, dict), f"{self.where}{_short(key)}.")

    def tables(self, key: str) -> dict[str, _Table]:
        inner = self.table(key)
        return {name: inner.table(name) for name in inner.data}

    def rows(self, key: str) -> list[_Table]:
        return [_Table(row, f"{self.where}{key}[{i}].") for i, row in enumerate(self.get(key, list))]


def _number(value: Any, where: str) -> float:
    # An integer of any length is JSON too, and would not fit a float.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Wrong(f"{where} is no number")
    try:
        number = float(value)
    except OverflowError as error:
        raise _Wrong(f"{where} is no finite number") from error
    if not math.isfinite(number):
        raise _Wrong(f"{where} is no finite number")
    return number


def _refuse_constant(name: str) -> float:
    raise _Wrong(f"holds {name}, which is no JSON")


def _short(name: str) -> str:
    return name if name.isprintable() and len(name) <= 80 else ascii(name)[:80]
