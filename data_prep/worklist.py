"""Which source goes to which split and which shard.

This is settled from the list of files alone, before anything is decoded: shard number k of a split holds the
clips of the k-th group of that split's sources, however many clips they turn out to give. So a shard can be
made by anyone, in any order, again after a kill, and always with the same bytes.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_prep.sources import Source, SourceError

SPLITS = ("train", "val")


@dataclass(frozen=True)
class Unit:
    """One shard to be made: the work of one run of sources. `stem` is e.g. `train/clips-000000`."""

    split: str
    number: int
    sources: tuple[Source, ...]

    @property
    def stem(self) -> str:
        return stem_of(self.split, self.number)


def stem_of(split: str, number: int) -> str:
    """Path of a shard in its dataset, without suffix."""
    return f"{split}/clips-{number:06d}"


def make_units(sources: Sequence[Source], *, sources_per_shard: int, val_fraction: float) -> list[Unit]:
    """Split `sources` and group them into shards; the order of `sources` is kept within a split.

    A source with the same bytes as an earlier one gets a `fault` that says so.
    """
    in_val = _val_names([source.split_name for source in sources], val_fraction)
    members: dict[str, list[Source]] = {split: [] for split in SPLITS}
    for source in _without_repeats(sources):
        members["val" if source.split_name in in_val else "train"].append(source)
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


def _without_repeats(sources: Sequence[Source]) -> list[Source]:
    # Equal bytes need equal sizes, so only files that share a size are read here.
    sharing: dict[int | None, int] = defaultdict(int)
    for source in sources:
        sharing[source.bytes] += 1
    first: dict[str, str] = {}
    result = []
    for source in sources:
        if source.bytes and sharing[source.bytes] > 1 and not source.fault:
            try:
                digest = source.sha1()
            except SourceError:
                pass  # the build will say so
            else:
                if digest in first:
                    source = replace(source, fault=f"repeats another source: same bytes as {first[digest]}")
                else:
                    first[digest] = source.uri
        result.append(source)
    return result
