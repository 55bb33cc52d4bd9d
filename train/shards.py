"""What a finished dataset offers for training: its shards, how many clips each gives, and its columns.

All of it stands in dataset.json (and duplicates.jsonl): no tar is opened to learn it.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live2diff.errors import DataError, UsageError


@dataclass(frozen=True)
class Shard:
    """A shard of clips.

    Attributes:
        path: its tar.
        clips: how many of its clips are trained on.
        sha256: of the tar, as the build stated it.
        passed_over: keys of the others: near-duplicates of clips elsewhere.
    """

    path: Path
    clips: int
    sha256: str = ""
    passed_over: frozenset[str] = frozenset()

    def column(self, name: str) -> Path:
        """The tar of a column beside it."""
        return self.path.with_name(f"{name}-{self.path.stem.partition('-')[2]}.tar")


def find_shards(folder: str | Path, split: str) -> list[Shard]:
    """The shards of a dataset's split that hold clips, in the order of their names.

    Raises:
        UsageError: no dataset, an unfinished one, or a split without shards.
        DataError: its description is damaged.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    passed_over: dict[str, set[str]] = defaultdict(set)
    for shard, key in _duplicates(folder):
        passed_over[shard].add(key)
    shards = []
    with _damage(folder / "dataset.json"):
        for entry in manifest["splits"].get(split, {}).get("shards", []):
            keys = frozenset(passed_over[entry["name"]])
            # Of a path only the last part counts: nothing outside the split is opened.
            path = folder / split / Path(entry["name"]).name
            shards.append(Shard(path, entry["clips"] - len(keys), entry.get("sha256", ""), keys))
        shards = sorted((shard for shard in shards if shard.clips > 0), key=lambda shard: shard.path)
    if not shards:
        raise UsageError(f"data.path={folder}: its split {split!r} holds no shards; see data.split")
    return shards


def read_manifest(folder: Path) -> dict[str, Any]:
    """`dataset.json`. Raises UsageError when there is none, DataError when it cannot be read."""
    path = folder / "dataset.json"
    if not path.is_file():
        state = "does not exist" if not folder.is_dir() else "holds no dataset.json: no finished dataset"
        raise UsageError(f"data.path={folder}: {state}; make one with `live2diff data build`")
    with _damage(path):
        manifest = json.loads(path.read_bytes())
        if not isinstance(manifest["splits"], dict):
            raise ValueError("splits is no table")
        return manifest


def check_readers(data: Mapping[str, Any], shards: int, world: int) -> None:
    """Refuse fewer shards than readers: some would have nothing of their own. Raises UsageError.

    Args:
        data: the `data` group of the configuration.
        world: processes that train.
    """
    readers = world * max(1, data["workers"])
    if shards < readers:
        raise UsageError(
            f"data.path={data['path']}: {shards} shards for {readers} readers, {world} ranks x "
            f"data.workers={data['workers']}; lower data.workers or make smaller shards"
        )


def check_span(data: Mapping[str, Any]) -> None:
    """Refuse samples that are longer than some of the clips, as far as the dataset tells their lengths.

    Raises:
        UsageError: the first such clip would stop the run in the middle.
        DataError: the index cannot be read.
    """
    folder, count, stride = Path(data["path"]), data["frames"], data["stride"]
    span, index = (count - 1) * stride + 1, folder / "index.parquet"
    built = read_manifest(folder).get("config")
    if isinstance(built, dict) and all(type(built.get(key)) is int for key in ("clip_frames", "stride")):
        if span <= (built["clip_frames"] - 1) * built["stride"] + 1:  # no clip is shorter
            return
    if not index.is_file():
        return
    import pyarrow.parquet as parquet

    with _damage(index):
        rows = parquet.read_table(
            index, columns=["frames"], filters=[("kind", "==", "clip"), ("split", "==", data["split"])]
        )
        lengths = rows.column("frames").to_pylist()
        short = [length for length in lengths if length < span]
    if short:
        raise UsageError(
            f"data.frames={count}, data.stride={stride}: a sample spans {span} frames, but {len(short)} of "
            f"{len(lengths)} clips of {folder} are shorter, down to {min(short)}; lower data.stride, or "
            f"build the dataset with clip_frames={count} stride={stride}"
        )


def fingerprint(shards: Sequence[Shard]) -> str:
    """Identifies which clips there are, in which order; a run can only be continued on the same."""
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(
            f"{shard.path.name} {shard.sha256} {shard.clips} {sorted(shard.passed_over)}\n".encode()
        )
    return digest.hexdigest()


def _duplicates(folder: Path) -> Iterator[tuple[str, str]]:
    """Shard and key of each clip that the build found to be a near-duplicate."""
    path, index = folder / "duplicates.jsonl", folder / "index.parquet"
    if not path.is_file():
        return
    with _damage(path), open(path, encoding="utf-8") as file:
        keys = [json.loads(line)["key"] for line in file]
    if keys:
        import pyarrow.parquet as parquet

        with _damage(index):  # pyarrow's errors are OSErrors and ValueErrors
            rows = parquet.read_table(index, columns=["shard", "key"], filters=[("key", "in", keys)])
            yield from zip(*(rows.column(name).to_pylist() for name in ("shard", "key")), strict=True)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """Whatever a damaged file leads to becomes one DataError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise DataError(
            f"{path}: cannot be read ({reason}); the same `live2diff data build` writes it again"
        ) from error
