"""The folder of a dataset: its plan and its work list (docs/dataset.md describes all of it).

    plan.json        the settings and the work list that the dataset was begun with; a rerun must agree
    worklist.jsonl   one row per source: its shard, and all that is needed to get at it

Whoever comes first writes both, under a lock; everyone else, on this machine or another, reads them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from glob import escape as glob_escape
from itertools import groupby
from pathlib import Path
from typing import Any

from data_prep.config import PrepConfig
from data_prep.finished import read_json
from data_prep.locks import clean_staged, dataset_lock, locked, sweep
from data_prep.records import SCHEMA
from data_prep.sources import Source
from data_prep.worklist import SPLITS, Unit, stem_of
from live2diff.errors import DataError, UsageError
from live2diff.files import staged_file, write_json

_PLAN, _WORKLIST = "plan.json", "worklist.jsonl"
_HINT = "use a new folder, or --new-version to begin one beside it"


def open_dataset(
    out: Path, config: PrepConfig, list_units: Callable[[], Sequence[Unit]], *, check_sources: bool
) -> None:
    """Begin the dataset at `out`, or make sure that the one there was begun in the same way.

    Args:
        list_units: lists the sources; called only when that is needed.
        check_sources: compare the sources of a dataset that was begun before, too, not just the settings.

    Raises:
        UsageError: `out` holds something else, or a dataset begun with other settings or sources.
    """
    _refuse_strangers(out)
    if _begin(out, config, list_units):
        return
    plan = read_plan(out)
    changed = _changed(plan["config"], config.content())
    if changed:
        raise UsageError(f"{out}: was begun with other settings ({changed}); {_HINT}")
    if check_sources:
        _agree_on_sources(out, plan, list_units())


def open_version(out: Path, config: PrepConfig, units: Sequence[Unit]) -> Path:
    """The newest of `out`, `out`-v2, `out`-v3 ... that was begun in the same way, or a new one after them."""
    versions = _versions(out)
    for _, folder in versions:
        if _same(folder, config, units):
            _agree_on_sources(folder, read_plan(folder), units)
            return folder
    number = 1
    if versions:
        number, newest = versions[0]
        number += (newest / _PLAN).is_file()  # without a plan it is one that is just being begun
    while True:
        folder = out if number == 1 else out.with_name(f"{out.name}-v{number}")
        _refuse_strangers(folder)
        if _begin(folder, config, lambda: units) or _same(folder, config, units):
            return folder
        number += 1


def read_plan(out: Path) -> dict[str, Any]:
    """`plan.json` of a dataset that was begun.

    Raises:
        UsageError: there is none.
        DataError: it cannot be read.
    """
    if not (out / _PLAN).is_file():
        raise UsageError(f"{out}: no dataset was begun there (no {_PLAN})")
    return read_json(out / _PLAN)


def read_units(out: Path, takes: Callable[[int], bool] = lambda number: True) -> list[Unit]:
    """The shards whose running number `takes` accepts, in the order of the work list."""
    units = []
    for number, (stem, rows) in enumerate(groupby(_read_rows(out), key=lambda row: row.pop("shard"))):
        if takes(number):
            rows = list(rows)
            units.append(Unit(rows[0]["split"], int(stem[-6:]), tuple(map(Source.from_row, rows))))
    return units


def planned_stems(plan: dict[str, Any]) -> list[tuple[str, str]]:
    """(split, stem) of every shard, in the order of the work list."""
    return [
        (split, stem_of(split, number)) for split in SPLITS for number in range(plan["shards"].get(split, 0))
    ]


def _begin(out: Path, config: PrepConfig, list_units: Callable[[], Sequence[Unit]]) -> bool:
    """Write plan and work list unless they are there; returns whether they were not."""
    if (out / _PLAN).is_file():
        return False
    try:
        with locked(dataset_lock(out), wait=True):
            if (out / _PLAN).is_file():
                return False  # someone else did meanwhile
            clean_staged(out, "*")
            units = list_units()
            _write_worklist(out, units)
            plan = {
                "schema": SCHEMA,
                "config": config.content(),
                "config_hash": config.hash(),
                "sources": sum(len(unit.sources) for unit in units),
                "shards": {split: sum(unit.split == split for unit in units) for split in SPLITS},
                "worklist_sha1": _worklist_sha1(units),
            }
            write_json(out / _PLAN, plan)
    except BaseException:
        sweep(out)
        with suppress(OSError):
            out.rmdir()  # nothing came of it
        raise
    return True


def _write_worklist(out: Path, units: Iterable[Unit]) -> None:
    with staged_file(out / _WORKLIST) as stage, open(stage, "w", encoding="utf-8") as file:
        # Plain ASCII: a path may hold bytes that are not UTF-8.
        file.writelines(json.dumps(row) + "\n" for row in _rows(units))


def _read_rows(out: Path) -> Iterator[dict[str, Any]]:
    try:
        with open(out / _WORKLIST, encoding="utf-8") as file:
            yield from map(json.loads, file)
    except (FileNotFoundError, ValueError) as error:
        raise DataError(f"{out / _WORKLIST}: cannot be read ({error}); begin a new dataset") from error


def _rows(units: Iterable[Unit]) -> Iterator[dict[str, Any]]:
    for unit in units:
        yield from ({"split": unit.split, "shard": unit.stem, **source.row()} for source in unit.sources)


def _worklist_sha1(units: Iterable[Unit]) -> str:
    """Hash of what the work list says, but not of where the sources lie: folders may move."""
    digest = hashlib.sha1()
    for row in _rows(units):
        del row["path"]
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


def _same(out: Path, config: PrepConfig, units: Sequence[Unit]) -> bool:
    if not (out / _PLAN).is_file():
        return False
    plan = read_plan(out)
    return plan["config"] == config.content() and plan["worklist_sha1"] == _worklist_sha1(units)


def _agree_on_sources(out: Path, plan: dict[str, Any], units: Sequence[Unit]) -> None:
    """Refuse other sources, and say what differs. The same ones in another place are written down."""
    if plan["worklist_sha1"] == _worklist_sha1(units):
        if any(before != now for before, now in zip(_read_rows(out), _rows(units), strict=True)):  # moved
            with locked(dataset_lock(out), wait=True):
                _write_worklist(out, units)
        return
    before, now, parts = list(_read_rows(out)), list(_rows(units)), []
    for keys, words in (
        (("uri", "bytes"), ("new or changed", "gone or changed")),
        (("uri", "caption"), ("with a new caption", "with an old caption")),
    ):
        old, new = ({tuple(row[key] for key in keys) for row in rows} for rows in (before, now))
        differences = zip(words, (new - old, old - new), strict=True)
        parts = [
            f"{len(names)} {what} (such as {min(name for name, _ in names)})"
            for what, names in differences
            if names
        ]
        if parts:
            break
    raise UsageError(f"{out}: was begun with other sources: {', '.join(parts) or 'other order'}; {_HINT}")


def _changed(old: dict[str, Any], new: dict[str, Any]) -> str:
    pairs = [(key, old.get(key), new.get(key)) for key in sorted({*old, *new})]
    return "; ".join(f"{key} was {before}, now {now}" for key, before, now in pairs if before != now)


def _versions(out: Path) -> list[tuple[int, Path]]:
    """(number, folder) of the versions that exist, newest first; `out` itself is number 1."""
    found = [(1, out)] if out.exists() else []
    for path in out.parent.glob(f"{glob_escape(out.name)}-v*"):
        match = re.fullmatch(r"-v([1-9]\d{0,8})", path.name.removeprefix(out.name))
        if match and int(match[1]) > 1 and path.is_dir():
            found.append((int(match[1]), path))
    return sorted(found, reverse=True)


def _refuse_strangers(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is not a folder")
    if out.is_dir():
        strangers = {item.name for item in out.iterdir() if not item.name.startswith(".")}
        # The plan is looked for second: another process writes it before the shards that would be strangers.
        if strangers - {_WORKLIST} and not (out / _PLAN).exists():
            raise UsageError(f"{out}: is not empty and no dataset; choose a new folder")
