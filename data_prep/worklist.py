"""Which source goes to which split and which shard.

This is settled from the list of files alone, before anything is decoded: shard number k of a split holds the
clips of the k-th group of that split's sources, however many clips they turn out to give. So a shard can be
made by anyone, in any order, again after a kill, and always with the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.sources import Source
from live2diff.files import sha1_of

SPLITS = ("train", "val")


@dataclass(frozen=True)
class WorkItem:
    """A source and what is known of it before it is opened.

    Attributes:
        bytes: size of the file; 0 for what is not a regular file.
        same_as: `uri` of an earlier source with the very same bytes; such an item is rejected unopened.
    """

    source: Source
    bytes: int
    same_as: str | None

    def row(self) -> dict[str, Any]:
        """The item in `worklist.jsonl`."""
        return {"uri": self.source.uri, "bytes": self.bytes, "same_as": self.same_as}


@dataclass(frozen=True)
class Unit:
    """One shard to be made: the work of one run of sources. `stem` is e.g. `train/clips-000000`."""

    split: str
    number: int
    items: tuple[WorkItem, ...]

    @property
    def stem(self) -> str:
        return f"{self.split}/clips-{self.number:06d}"


def make_units(sources: Sequence[Source], *, sources_per_shard: int, val_fraction: float) -> list[Unit]:
    """Split `sources` and group them into shards; the order of `sources` is kept within a split."""
    in_val = _val_names([source.split_name for source in sources], val_fraction)
    members: dict[str, list[WorkItem]] = {split: [] for split in SPLITS}
    for item in _items(sources):
        members["val" if item.source.split_name in in_val else "train"].append(item)
    return [
        Unit(split, number, tuple(members[split][start : start + sources_per_shard]))
        for split in SPLITS
        for number, start in enumerate(range(0, len(members[split]), sources_per_shard))
    ]


def _val_names(names: Sequence[str], fraction: float) -> set[str]:
    """Names whose hash falls below `fraction`: adding a source later moves no other one."""
    place = {name: int(hashlib.sha1(name.encode()).hexdigest()[:12], 16) / 16**12 for name in names}
    chosen = {name for name in names if place[name] < fraction}
    if not chosen and fraction > 0 and len(place) > 1:
        chosen = {min(place, key=lambda name: place[name])}  # a few sources: one for validation all the same
    return chosen


def _items(sources: Sequence[Source]) -> list[WorkItem]:
    sizes = [_regular_size(source.path) for source in sources]
    # Equal bytes need equal sizes, so only files that share a size are read here.
    sharing = defaultdict(list)
    for source, size in zip(sources, sizes, strict=True):
        if size:
            sharing[size].append(source)
    first: dict[str, str] = {}
    same_as: dict[str, str] = {}
    for group in sharing.values():
        for source in group if len(group) > 1 else ():
            try:
                digest = sha1_of(source.path)
            except OSError:
                continue  # unreadable: the build will say so
            if digest in first:
                same_as[source.path] = first[digest]
            else:
                first[digest] = source.uri
    return [
        WorkItem(source, size, same_as.get(source.path)) for source, size in zip(sources, sizes, strict=True)
    ]


def _regular_size(path: str) -> int:
    try:
        info = os.stat(path)
    except OSError:
        return 0
    return info.st_size if stat.S_ISREG(info.st_mode) else 0
