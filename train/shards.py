"""Shards of a dataset: finding them, counting their clips, reading them undecoded."""

from __future__ import annotations

import itertools
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import webdataset as wds
from webdataset.tariterators import base_plus_ext

from live2diff.errors import DataError, UsageError


def find_shards(folder: str | Path, split: str) -> list[Path]:
    """The clip shards of a dataset's split, sorted. Raises UsageError when there are none."""
    folder = Path(folder)
    shards = sorted((folder / split).glob("clips-*.tar"))
    if not shards:
        state = "holds no shards" if folder.is_dir() else "does not exist"
        raise UsageError(
            f"data.path={folder}: {folder / split} {state}; make a dataset with `live2diff data build`"
        )
    return shards


def count_clips(shard: Path) -> int:
    """Clips of a shard, from the headers of its members: nothing else is read. Raises DataError."""
    try:
        with tarfile.open(shard) as tar:
            keys = [base_plus_ext(member.name)[0] for member in tar if member.isreg()]
    except Exception as error:
        raise _damaged(shard, error) from error
    return sum(1 for _ in itertools.groupby(filter(None, keys)))


def read_shards(shards: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The clips of shards in order, each {"__key__", "__url__", and bytes by extension}.

    Raises:
        DataError: a shard that cannot be read.
    """
    for shard in shards:
        try:
            # Members are plain bytes, never unpickled: webdataset's own decoders are not used.
            yield from wds.tarfile_to_samples(handler=wds.reraise_exception)([{"url": str(shard)}])
        except Exception as error:
            raise _damaged(shard, error) from error


def one_line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _damaged(shard: Path, error: Exception) -> DataError:
    # webdataset appends objects of its own to an error's arguments.
    reason = error if isinstance(error, OSError) or not error.args else error.args[0]
    return DataError(f"{shard}: cannot be read ({one_line(reason)}); make the dataset again")
