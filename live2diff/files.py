"""Writing that is either whole or absent: stage beside the target, fsync, rename.

Everything this project writes for keeps goes through here, so that a kill at any moment leaves either the old
artefact or the new one under the final name, never half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4


def fsync(path: Path) -> None:
    """Make sure that a file's bytes, or a folder's names, are on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _share(path: Path) -> None:
    """Give a file the permissions any new file gets here: safetensors makes its own unreadable for others."""
    if path.is_file():
        mask = os.umask(0o077)
        os.umask(mask)
        path.chmod(0o666 & ~mask)


def _stage_name(path: Path) -> Path:
    # The suffix stays last: writers choose the format by it. A dot file is never read as data.
    return path.with_name(f".staged-{uuid4().hex[:8]}-{path.name}")


@contextmanager
def staged_file(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is fsynced and renamed, on error removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stage = _stage_name(path)
    try:
        yield stage
        _share(stage)
        fsync(stage)
        os.replace(stage, path)
        fsync(path.parent)
    finally:
        stage.unlink(missing_ok=True)


@contextmanager
def staged_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success all of it is fsynced and it is renamed to `path`.

    An existing folder at `path` is moved aside when the new one is complete, and removed last. A kill between
    the two renames leaves it under a name that begins with `.replaced-`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stage, old = _stage_name(path), path.with_name(f".replaced-{uuid4().hex[:8]}-{path.name}")
    stage.mkdir()
    try:
        yield stage
        for item in [*stage.rglob("*"), stage]:
            _share(item)
            fsync(item)
        if path.exists():
            os.replace(path, old)
        os.replace(stage, path)
        fsync(path.parent)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def write_json(path: str | os.PathLike, data: Any) -> None:
    """Write `data` as indented JSON, staged and renamed. Key order is kept; a final newline is added."""
    with staged_file(path) as stage:
        stage.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def sha1_of(path: str | os.PathLike) -> str:
    """Hex SHA-1 of a file's bytes (an identity for sources, not a security measure)."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()
