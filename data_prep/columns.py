"""Columns beside finished shards: what the frozen nets make of the clips (`live2diff.columns` says what).

A column's shard is a tar with the stem number and the key order of its clip shard, and a side-car, written
last. Shards that have it are left alone; all of a column must be made by the same nets.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import av

from data_prep.config import PrepConfig
from data_prep.finished import read_json
from data_prep.locks import clean_staged, locked, shard_lock
from data_prep.members import list_members, read_member
from data_prep.shards import read_side_car
from data_prep.worklist import SPLITS
from live2diff.columns import COLUMNS, differences, member
from live2diff.errors import DataError, UsageError
from live2diff.files import staged_file, write_json

if TYPE_CHECKING:
    from data_prep.nets import Nets

SCHEMA = 1


def make_columns(
    dataset: Path, stems: Sequence[str], config: PrepConfig, advance: Callable[[], None]
) -> None:
    """Add `config.columns` to the shards that lack them. Several processes may do so at a time.

    Args:
        dataset: its folder.
        stems: of its finished clip shards, such as "train/clips-000000".
        advance: called after each shard.

    Raises:
        UsageError: a column was begun with other nets or another size, which are named.
        DataError: a clip that does not decode, or values that do not fit.
        CheckpointError: `config.column_model` is no model.
        SetupError: `config.column_device` is not there.
    """
    from data_prep.nets import Nets  # imports torch

    nets = Nets.load(config)
    for column in config.columns:
        _refuse_another(dataset, column, nets.identities[column])
    for stem in stems:
        with locked(shard_lock(dataset, stem), wait=True):
            clips = read_side_car(dataset, stem)
            missing = [
                column for column in config.columns if not _is_made(dataset, stem, column, clips, nets)
            ]
            if clips and clips["shard"] and missing:
                _make_shard(dataset, stem, missing, clips, nets)
        advance()


def column_identities(dataset: Path) -> dict[str, Any]:
    """What made each column of a dataset, and for how many shards of each split it is there.

    Raises:
        DataError: a column of several makers, or a side-car that cannot be read.
    """
    found: dict[str, Any] = {}
    for column in COLUMNS:
        counts = dict.fromkeys(SPLITS, 0)
        made_by: dict[str, Any] = {}
        for split in SPLITS:
            for path in sorted((dataset / split).glob(f"{column}-??????.json")):
                side_car = read_json(path)
                clips = read_side_car(dataset, f"{split}/clips-{path.stem[-6:]}")
                if clips is None or side_car["clips_sha256"] != clips["sha256"]:
                    continue  # of clips that were made again since: to be made again as well
                now = side_car["made_by"]
                made_by = made_by or now
                changed = differences(made_by, now)
                if changed:
                    raise DataError(
                        f"{path}: made in another way than the rest of its column ({'; '.join(changed)}); "
                        "remove it and its tar, and run the build again"
                    )
                counts[split] += 1
        if made_by:
            found[column] = {**made_by, "shards": counts}
    return found


def _refuse_another(dataset: Path, column: str, now: dict[str, Any]) -> None:
    """Refuse to go on with a column that other nets began."""
    begun = next(dataset.glob(f"*/{column}-??????.json"), None)
    found = differences(read_json(begun)["made_by"], now) if begun else []
    if found:
        raise UsageError(
            f"{dataset}: column {column} was begun in another way ({'; '.join(found)}); go on as it was "
            f"begun, or remove {dataset}/*/{column}-* to make it anew"
        )


def _is_made(dataset: Path, stem: str, column: str, clips: dict[str, Any] | None, nets: Nets) -> bool:
    path = _beside(dataset, stem, column)
    if not clips or not path.with_suffix(".json").is_file():
        return False
    side_car = read_json(path.with_suffix(".json"))
    whole = path.is_file() and path.stat().st_size == side_car["bytes"]
    same = not differences(side_car["made_by"], nets.identities[column])
    return whole and same and side_car["clips_sha256"] == clips["sha256"]


def _make_shard(dataset: Path, stem: str, columns: Sequence[str], clips: dict[str, Any], nets: Nets) -> None:
    """Write columns of one shard, all in one pass over its clips."""
    keys = [record["key"] for record in clips["records"]]
    paths = {column: _beside(dataset, stem, column) for column in columns}
    for path in paths.values():
        clean_staged(path.parent, f"{path.stem}.*")  # of a process that was killed
    with ExitStack() as stack:
        stages = {column: stack.enter_context(staged_file(path)) for column, path in paths.items()}
        with ExitStack() as open_tars:
            tars = {
                column: open_tars.enter_context(tarfile.open(stage, "w", format=tarfile.USTAR_FORMAT))
                for column, stage in stages.items()
            }
            for key, column, suffix, file in _arrays(
                dataset / f"{stem}.tar", clips["records"], columns, nets
            ):
                _add(tars[column], f"{key}.{suffix}", file)
        sums = {column: _sha256(stage) for column, stage in stages.items()}
        sizes = {column: stage.stat().st_size for column, stage in stages.items()}
    for column, path in paths.items():
        side_car = {
            "schema": SCHEMA,
            "column": column,
            "split": clips["split"],
            "shard": f"{clips['split']}/{path.name}",
            "sha256": sums[column],
            "bytes": sizes[column],
            "clips": len(keys),
            "clips_sha256": clips["sha256"],
            "keys": keys,
            "made_by": nets.made_by(column),
        }
        write_json(path.with_suffix(".json"), side_car)


def _arrays(
    tar: Path, records: Sequence[dict[str, Any]], columns: Sequence[str], nets: Nets
) -> Iterator[tuple[str, str, str, IO[bytes]]]:
    """Key, column, extension and content of every array of a shard, clip by clip."""
    members = list_members(tar)
    if "text" in columns:
        with _naming(f"{tar}: captions"):
            captions = [record["caption"] for record in records]
            for record, file in zip(records, nets.text_arrays(captions), strict=True):
                yield record["key"], "text", member("text"), file
    pictures = [column for column in columns if column != "text"]
    for record in records if pictures else ():
        key = record["key"]
        with _naming(f"{tar}: clip {key}"):
            data = read_member(tar, members[f"{key}.mp4"])
            for column, suffix, file in nets.picture_arrays(data, record["frames"], pictures):
                yield key, column, suffix, file


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """What a decoder or a net cannot do becomes one line that says for which clip."""
    try:
        yield
    except (ValueError, KeyError, av.FFmpegError) as error:
        words = " ".join(str(error).split())
        raise DataError(f"{what}: {words}; see `live2diff data check`") from error


def _beside(dataset: Path, stem: str, column: str) -> Path:
    """The tar of a column beside the clips of `stem`."""
    split, _, name = stem.partition("/")
    return dataset / split / f"{column}-{name.partition('-')[2]}.tar"


def _add(tar: tarfile.TarFile, name: str, file: IO[bytes]) -> None:
    entry = tarfile.TarInfo(name)  # mtime 0, owner 0, mode 0644: nothing of this machine
    entry.size = file.seek(0, 2)
    file.seek(0)
    tar.addfile(entry, file)
    file.close()


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
