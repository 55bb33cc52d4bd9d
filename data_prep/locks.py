"""Who works on what: locks that the system lets go of even when their holder is killed.

Several processes, on several machines that share the file system, may build one dataset at a time. Before a
shard (or a column of it) is made, or something at the top of the dataset is written, its lock is taken; half
of what a killed process left behind is removed only under that same lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from live2diff.errors import SetupError

FOLDER = ".locks"  # in the dataset; gone when the dataset is complete
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock file at `path`; yields whether it is held, which it always is with `wait`.

    The file stays (see `sweep`).

    Raises:
        SetupError: the file system has no locks.
    """
    descriptor = _take(path, wait)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def dataset_lock(out: Path) -> Path:
    """Lock file of what lies at the top of the dataset `out`: plan, work list, index, manifest."""
    return out / FOLDER / "dataset"


def shard_lock(out: Path, stem: str) -> Path:
    """Lock file of the shard `stem`, such as "train/clips-000000", and of its columns."""
    return out / FOLDER / stem.replace("/", "-")


def sweep(out: Path) -> None:
    """Remove the lock files that nobody holds."""
    for path in (out / FOLDER).glob("*"):
        with locked(path, wait=False) as held:
            if held:
                path.unlink()  # who opened it meanwhile notices, and begins anew
    with suppress(OSError):
        (out / FOLDER).rmdir()


def clean_staged(folder: Path, pattern: str) -> None:
    """Remove what a killed process staged in `folder` for names like `pattern`. Hold their lock."""
    for leftover in folder.glob(f".staged-????????-{pattern}"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _take(path: Path, wait: bool) -> int | None:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Open for writing: over NFS an exclusive lock needs that.
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            continue  # the folder was swept away in between
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if os.fstat(descriptor).st_nlink:
                return descriptor
            os.close(descriptor)  # swept away while we waited
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                raise SetupError(
                    f"{path}: this file system has no locks (flock); mount it with them (Lustre: -o flock)"
                ) from error
            error.filename = str(path)
            raise
