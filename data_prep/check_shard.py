"""What can be wrong with one shard and its columns. Nothing is trusted that was not compared."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.finished import read_json
from data_prep.members import Place, array_header, list_members, read_member
from data_prep.schema import record_faults
from live2diff.columns import COLUMNS, member
from live2diff.errors import DataError

_KEY = re.compile(r"[0-9a-f]{12}_\d{4,}_\d{3,}")
_CLIP = ("mp4", "txt", "json")  # members of a clip, in this order


_ROWS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["key", "frames"],
        "properties": {"key": {"type": "string"}, "frames": {"type": "integer", "minimum": 0}},
    },
}
_SIDE_CAR = {
    "required": ["split", "shard", "clips", "frames", "seconds", "rejected", "inputs", "records", "dropped"],
    "properties": {
        **{name: {"type": "number"} for name in ("clips", "frames", "seconds", "rejected")},
        "inputs": {
            "type": "array",
            "items": {"type": "object", "required": ["uri"], "properties": {"uri": {"type": "string"}}},
        },
        "records": _ROWS,
        "dropped": _ROWS,
    },
}
_COLUMN = {
    "required": ["sha256", "bytes", "keys", "made_by", "clips_sha256"],
    "properties": {
        "keys": {"type": "array"},
        "made_by": {
            "type": "object",
            "required": ["shape", "dtype"],
            "properties": {"shape": {"type": "array", "items": {"type": "integer"}}},
        },
    },
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: in which file of the dataset, at which key, what, and what to do about it."""

    file: str
    key: str | None
    what: str
    todo: str

    def line(self) -> str:
        where = f"{self.file}: {self.key}" if self.key else self.file
        return f"{where}: {self.what}; {self.todo}"


class Shard:
    """One clip shard with its side-car and columns; `check` yields what is wrong.

    Attributes:
        stem: such as `train/clips-000000`.
        side_car: what the side-car says; empty if it cannot be read.
        clips: key -> (place of the MP4, record), of clips that may be decoded.
        columns: column -> the identity of what made it; None if its side-car does not say.
    """

    def __init__(self, folder: Path, stem: str):
        self.stem, self._folder = stem, folder
        self.tar = folder / f"{stem}.tar"
        self.side_car: dict[str, Any] = {}
        self.clips: dict[str, tuple[Place, dict[str, Any]]] = {}
        self.columns: dict[str, dict[str, Any] | None] = {}

    def check(self) -> Iterator[Problem]:
        """Compare side-car, tar and columns with each other; reads every byte once."""
        name = f"{self.stem}.json"
        again = f"remove {self.stem}.* and run the same `live2diff data build` again"
        try:
            side_car = read_json(self._folder / name, _SIDE_CAR)
        except DataError as error:
            yield Problem(name, None, _after_path(error), again)
            return
        self.side_car, records = side_car, side_car["records"]
        expected = f"{self.stem}.tar" if records else None
        if side_car.get("shard") != expected or side_car.get("split") != self.stem.partition("/")[0]:
            said = f"says shard {side_car.get('shard')}, split {side_car.get('split')}"
            yield Problem(name, None, f"{said}, which is not its own", again)
        counts = {"clips": len(records), "frames": sum(record["frames"] for record in records)}
        for what, count in counts.items():
            if side_car.get(what) != count:
                yield Problem(name, None, f"counts {side_car.get(what)} {what}, lists {count}", again)
        if not records:
            return
        fault = file_fault(self.tar, side_car)
        if fault:
            yield Problem(f"{self.stem}.tar", None, fault, again)
        else:
            yield from self._records(records, again)
        yield from self._columns(records)

    def _records(self, records: Sequence[dict[str, Any]], again: str) -> Iterator[Problem]:
        """Members against the side-car's records."""
        name = f"{self.stem}.tar"
        try:
            members = list_members(self.tar)
        except DataError as error:
            yield Problem(name, None, _after_path(error), again)
            return
        keys = [record["key"] for record in records]
        fault = _order_fault(list(members), keys, _CLIP)
        if fault:
            yield Problem(name, *fault, again)
            return
        for key, record in zip(keys, records, strict=True):
            fault = self._record_fault(key, record, members)
            if fault:
                yield Problem(name, key, fault, again)
            else:
                self.clips[key] = (members[f"{key}.mp4"], record)

    def _record_fault(self, key: str, record: dict[str, Any], members: Mapping[str, Place]) -> str | None:
        fault = next(record_faults(record), None)
        if fault:
            return f"its record is not valid: {fault}"
        if record["dropped"]:
            return f"is in the shard, though it was dropped ({record['dropped']})"
        if not _KEY.fullmatch(key) or not key.startswith(record["source"]["id"]):
            return f"its key does not fit its source {record['source']['id']}"
        try:
            written = json.loads(read_member(self.tar, members[f"{key}.json"]))
        except (ValueError, RecursionError) as error:
            return f"its .json is not readable ({error})"
        if written != record:
            different = [name for name in {**written, **record} if written.get(name) != record.get(name)]
            return f"its .json says another {different[0]} than the side-car"
        if read_member(self.tar, members[f"{key}.txt"]) != record["caption"].encode():
            return "its .txt is not the caption of its record"
        return None

    def _columns(self, records: Sequence[dict[str, Any]]) -> Iterator[Problem]:
        frames = {record["key"]: record["frames"] for record in records}
        for column in COLUMNS:
            stem = self.stem.replace("clips-", f"{column}-")
            tar, side = self._folder / f"{stem}.tar", self._folder / f"{stem}.json"
            if not tar.exists() and not side.exists():
                continue
            again = f"remove {stem}.* and run the build again with columns=[{column}]"
            self.columns[column] = None
            try:
                side_car = read_json(side, _COLUMN)
                made_by = self.columns[column] = side_car["made_by"]
                fault = file_fault(tar, side_car)
                if fault:
                    yield Problem(f"{stem}.tar", None, fault, again)
                    continue
                if side_car["clips_sha256"] != self.side_car.get("sha256"):
                    what = "was made from other clips than those beside it"
                    yield Problem(f"{stem}.json", None, what, again)
                    continue
                members = list_members(tar)
            except DataError as error:
                where = side if str(error).startswith(str(side)) else tar
                yield Problem(f"{stem}{where.suffix}", None, _after_path(error), again)
                continue
            arrays = _arrays(column, bool(made_by.get("mirror")))
            fault = _order_fault(list(members), list(frames), arrays)
            if not fault and side_car["keys"] != list(frames):
                yield Problem(f"{stem}.json", None, "lists other keys than the clips", again)
            elif not fault:
                fault = _array_fault(tar, members, frames, column, made_by, arrays)
            if fault:
                yield Problem(f"{stem}.tar", *fault, again)


def file_fault(path: Path, side_car: Mapping[str, Any]) -> str | None:
    """Whether the file at `path` is, byte for byte, the one that its side-car is about."""
    if not path.is_file():
        return "is missing, but its side-car is there"
    size = path.stat().st_size
    if "bytes" in side_car and size != side_car["bytes"]:
        return f"has {size} bytes, its side-car says {side_car['bytes']}"
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != side_car.get("sha256"):
        stated = str(side_car.get("sha256"))
        return f"has another sha256 than its side-car says ({digest[:12]}…, not {stated[:12]}…)"
    return None


def _arrays(column: str, mirror: bool) -> list[str]:
    """Members of one key in a column's tar."""
    parts = ("", "range") if column == "depth" else ("",)
    sides = (False, True) if mirror and column != "text" else (False,)
    return [member(column, mirrored, of) for mirrored in sides for of in parts]


def _order_fault(
    names: Sequence[str], keys: Sequence[str], suffixes: Sequence[str]
) -> tuple[str | None, str] | None:
    """(key, what) if `names` are not the members `suffixes` of each of `keys`, in that order."""
    found: dict[str, list[str]] = {}
    for name in names:
        key, _, suffix = name.partition(".")
        found.setdefault(key, []).append(suffix)
    for key in keys:
        missing = [suffix for suffix in suffixes if suffix not in found.get(key, [])]
        if missing:
            return key, f"has no .{missing[0]}" if key in found else "is missing"
    known = set(keys)
    for key, held in found.items():
        extra = [suffix for suffix in held if suffix not in suffixes]
        if key not in known or extra:
            if key not in known:
                return key, "is in the tar, but not in the side-car"
            return key, f"holds an unexpected .{extra[0]}"
    grouped = [name.partition(".")[0] for name in names][:: len(suffixes)]
    for at, (key, other) in enumerate(zip(keys, grouped, strict=False)):
        if key != other:
            return key, f"is out of order: {other} stands at its place, number {at}"
    if [name.partition(".")[2] for name in names] != [*suffixes] * len(keys) and suffixes == _CLIP:
        return None, f"members are not in the order .{', .'.join(suffixes)} of each key"
    return None


def _array_fault(
    tar: Path,
    members: Mapping[str, Place],
    frames: Mapping[str, Any],
    column: str,
    made_by: Mapping[str, Any],
    arrays: Sequence[str],
) -> tuple[str, str] | None:
    """(key, what) for the first array that is not of the shape and type it should have."""
    row = tuple(made_by["shape"])
    for key, count in frames.items():
        for suffix in arrays:
            expected: tuple[Any, ...] = row if column == "text" else (count, *row)
            kind = str(made_by["dtype"])
            if suffix.endswith("range.npy"):
                expected, kind = (count, 2), "float32"
            try:
                shape, dtype, _ = array_header(read_member(tar, members[f"{key}.{suffix}"]))
            except ValueError as error:
                return key, f"its .{suffix} is no array: {error}"
            if (shape, str(dtype)) != (expected, kind):
                return key, f"its .{suffix} is {dtype} {shape}, expected {kind} {expected}"
    return None


def _after_path(error: DataError) -> str:
    """The message without its first part, the path."""
    return str(error).partition(": ")[2].partition(";")[0]
