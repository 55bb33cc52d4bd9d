"""One shard: a tar of `KEY.mp4`, `KEY.txt`, `KEY.json` and a JSON side-car, which is written last.

The side-car says that the shard is finished. The same clips give the same bytes: members are in the order of
the work list and carry no time, owner or machine.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from data_prep.config import PrepConfig
from data_prep.finished import read_json
from data_prep.records import SCHEMA, Outcome, clip_record, input_record
from data_prep.worklist import Unit
from live2diff import __version__
from live2diff.files import staged_file, write_json


def write_shard(
    out: Path,
    unit: Unit,
    outcomes: Sequence[Outcome],
    config: PrepConfig,
    captioner: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the shard of `unit` under `out`; return its side-car. Without a single clip there is no tar.

    Args:
        captioner: identity of the model that wrote captions, if one did.
    """
    tar_path, side_car_path = out / f"{unit.stem}.tar", out / f"{unit.stem}.json"
    clips = [(outcome, clip) for outcome in outcomes for clip in outcome.clips]
    records = [clip_record(outcome, clip, config) for outcome, clip in clips]
    digest, size = None, 0
    if clips:
        with _naming(tar_path), staged_file(tar_path) as stage:
            files = [outcome.folder / clip["file"] for outcome, clip in clips]
            _write_tar(stage, files, records)
            with open(stage, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = stage.stat().st_size
    side_car = {
        "schema": SCHEMA,
        "split": unit.split,
        "shard": f"{unit.stem}.tar" if clips else None,
        "sha256": digest,
        "bytes": size,
        "clips": len(records),
        "frames": sum(record["frames"] for record in records),
        "seconds": round(sum(record["frames"] / record["fps"] for record in records), 3),
        "rejected": sum(outcome.rejected is not None for outcome in outcomes),
        "config_hash": config.hash(),
        "tools": tool_versions(),
        "captioner": captioner,
        "inputs": [input_record(outcome) for outcome in outcomes],
        "records": records,
        "dropped": [clip_record(outcome, clip, config) for outcome in outcomes for clip in outcome.dropped],
    }
    with _naming(side_car_path):
        write_json(side_car_path, side_car)
    return side_car


def read_side_car(out: Path, stem: str) -> dict[str, Any] | None:
    """The side-car of a finished shard; None if it is still to be made (or its tar is gone).

    Raises:
        DataError: it cannot be read.
    """
    path, tar_path = out / f"{stem}.json", out / f"{stem}.tar"
    if not path.is_file():
        return None
    side_car = read_json(path)
    whole = side_car["shard"] is None or (tar_path.is_file() and tar_path.stat().st_size == side_car["bytes"])
    return side_car if whole else None


def tool_versions() -> dict[str, str]:
    """Versions of everything that has a say in a clip's bytes."""
    names = {"av": "av", "opencv": "opencv-python-headless", "scenedetect": "scenedetect-headless"}
    return {"live2diff": __version__, **{name: version(package) for name, package in names.items()}}


def _write_tar(path: Path, files: Sequence[Path], records: Sequence[dict[str, Any]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for file, record in zip(files, records, strict=True):
            key = record["key"]
            text = json.dumps(record, indent=1, ensure_ascii=False)
            _add(tar, f"{key}.mp4", file.read_bytes())
            _add(tar, f"{key}.txt", record["caption"].encode())
            _add(tar, f"{key}.json", text.encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # mtime 0, owner 0, mode 0644: nothing of this machine
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors of writing name the file that was to be written, not the one it was staged in."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise
