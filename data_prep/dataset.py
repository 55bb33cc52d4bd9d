"""The folder of a dataset.

DATASET/plan.json        settings and work list this dataset was begun with; a rerun must agree
DATASET/worklist.jsonl   one row per source: uri, size, split, and the earlier source it repeats, if any
DATASET/train/clips-000000.tar + .json   a shard and its side-car (shards.py)
DATASET/val/...
DATASET/index.jsonl, DATASET/dataset.json   what came of it (manifest.py)
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_prep.config import PrepConfig
from data_prep.records import SCHEMA
from data_prep.worklist import SPLITS, Unit
from live2diff.errors import SetupError, UsageError
from live2diff.files import staged_file, write_json


@contextmanager
def open_dataset(out: Path, config: PrepConfig, units: Sequence[Unit]) -> Iterator[None]:
    """Begin the dataset at `out` or take it up again; it is locked meanwhile.

    Raises:
        UsageError: `out` holds something else, or a dataset begun with other settings or sources.
        SetupError: another build runs in it.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is not a folder")
    plan_path, worklist_path = out / "plan.json", out / "worklist.jsonl"
    if out.is_dir() and not plan_path.exists():
        strangers = [item.name for item in out.iterdir() if not item.name.startswith(".")]
        if set(strangers) - {worklist_path.name}:
            raise UsageError(f"{out}: is not empty and no dataset; choose a new folder")
    rows = [{"split": unit.split, **item.row()} for unit in units for item in unit.items]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    plan = {
        "schema": SCHEMA,
        "config": config.content(),
        "config_hash": config.hash(),
        "sources": len(rows),
        "worklist_sha1": hashlib.sha1(text.encode()).hexdigest(),
    }
    out.mkdir(parents=True, exist_ok=True)
    with _locked(out):
        if plan_path.exists():
            _compare(out, json.loads(plan_path.read_text(encoding="utf-8")), plan, rows)
        else:
            with staged_file(worklist_path) as stage:
                stage.write_text(text, encoding="utf-8")
            write_json(plan_path, plan)
        for folder in (out, *(out / split for split in SPLITS)):
            for leftover in folder.glob(".staged-*"):  # of a build that was killed
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        yield


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold `folder` alone; the system lets go of it even when this process is killed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SetupError(
                f"{folder}: another build runs there; wait for it or use a new folder"
            ) from error
        yield
    finally:
        os.close(descriptor)


def _compare(out: Path, old: dict[str, Any], new: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Refuse to go on with a dataset that was begun in another way, and say what differs."""
    keys = sorted({*old["config"], *new["config"]})
    pairs = [(key, old["config"].get(key), new["config"].get(key)) for key in keys]
    changed = [f"{key} was {before}, now {now}" for key, before, now in pairs if before != now]
    if changed:
        raise UsageError(f"{out}: was begun with other settings ({'; '.join(changed)}); use a new folder")
    if old["worklist_sha1"] == new["worklist_sha1"]:
        return
    with open(out / "worklist.jsonl", encoding="utf-8") as file:
        before = {(row["uri"], row["bytes"]) for row in map(json.loads, file)}
    now = {(row["uri"], row["bytes"]) for row in rows}
    parts = [
        f"{len(names)} {what} (such as {min(names)[0]})"
        for what, names in (("new or changed", now - before), ("gone or changed", before - now))
        if names
    ]
    raise UsageError(
        f"{out}: was begun with other sources: {', '.join(parts) or 'other order'}; use a new folder"
    )
