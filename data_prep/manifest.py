"""What came of a build, gathered from the side-cars of its shards.

duplicates.jsonl   the clips that training passes over, if near-duplicates are dropped
index.parquet      a row per clip, per dropped clip and per rejected input (index.py)
dataset.json       settings, tool versions, totals and counts per split; written last, so a folder with
                   one is a complete dataset
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.columns import column_identities
from data_prep.dataset import planned_stems, read_plan
from data_prep.filters.duplicates import COMPLETE, find_duplicates
from data_prep.index import write_index
from data_prep.locks import clean_staged, dataset_lock, locked
from data_prep.records import SCHEMA, reason_kind
from data_prep.shards import read_side_car
from data_prep.slices import noted_slices
from data_prep.worklist import SPLITS
from live2diff.errors import DataError
from live2diff.files import staged_file, write_json

_COUNTS = ("clips", "dropped", "frames", "seconds", "rejected")


@dataclass(frozen=True)
class Summary:
    """What a finished dataset holds.

    Attributes:
        out: its folder.
        inputs, clips, dropped, rejected, frames: counts; an input gives one or more clips or is rejected.
        duplicates: near-duplicates among the clips.
        seconds: playing time of the clips.
        splits: the same counts per split, and its `shards`.
        reasons: rejected inputs by kind of reason, commonest first; `dropped_for`: dropped clips.
    """

    out: str
    inputs: int
    clips: int
    dropped: int
    rejected: int
    duplicates: int
    frames: int
    seconds: float
    splits: dict[str, dict[str, Any]]
    reasons: dict[str, int]
    dropped_for: dict[str, int]


def write_manifest(out: Path) -> Summary:
    """Write index and manifest of the dataset at `out`, whose shards must all be finished.

    Raises:
        DataError: shards are missing, or no input gave a clip; then the index is written, the manifest not.
    """
    with locked(dataset_lock(out), wait=True):
        clean_staged(out, "*")
        return _write(out, read_plan(out))


def _write(out: Path, plan: dict[str, Any]) -> Summary:
    _refuse_missing(out, plan)
    totals = _Totals()
    for side_car in _side_cars(out, plan):
        totals.add(side_car)
    threshold = plan["config"]["max_duplicate_distance"]
    duplicates = _duplicates(totals.fingerprints, COMPLETE if threshold is None else threshold)
    if threshold is not None:
        with staged_file(out / "duplicates.jsonl") as stage, open(stage, "w", encoding="utf-8") as file:
            for key, (other, distance) in duplicates.items():
                file.write(json.dumps({"key": key, "duplicate_of": other, "distance": distance}) + "\n")
    write_index(out / "index.parquet", _side_cars(out, plan), totals.scores, duplicates)
    sums = {
        name: round(sum(split[name] for split in totals.splits.values()), 3) for name in ("inputs", *_COUNTS)
    }
    sums["duplicates"] = len(duplicates)
    reasons = _by_count(totals.reasons)
    if not sums["clips"]:
        kind, count = next(iter(reasons.items()))
        raise DataError(
            f"{out}: none of the {sums['inputs']} inputs gave a clip; most often ({count}): {kind}; "
            f"see {out / 'index.parquet'}"
        )
    manifest = {
        "schema": SCHEMA,
        "config": plan["config"],
        "config_hash": plan["config_hash"],
        "tools": totals.tools,
        "captioners": totals.captioners,
        "columns": column_identities(out),
        "totals": sums,
        "splits": totals.splits,
        "rejected": reasons,
        "dropped": _by_count(totals.dropped),
    }
    write_json(out / "dataset.json", manifest)
    return Summary(
        out=str(out), splits=totals.splits, reasons=reasons, dropped_for=manifest["dropped"], **sums
    )


@dataclass
class _Totals:
    """Sums over all side-cars, and what must be known of all clips before the index can be written."""

    splits: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            split: {"inputs": 0, **dict.fromkeys(_COUNTS, 0), "shards": []} for split in SPLITS
        }
    )
    reasons: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    scores: set[str] = field(default_factory=set)
    # More than one each if a library or the model changed between two runs.
    tools: list[dict[str, str]] = field(default_factory=list)
    captioners: list[dict[str, Any]] = field(default_factory=list)
    fingerprints: dict[str, list[tuple[str, str]]] = field(
        default_factory=lambda: {split: [] for split in SPLITS}
    )
    _ids: dict[int, str] = field(default_factory=dict)

    def add(self, side_car: dict[str, Any]) -> None:
        split = self.splits[side_car["split"]]
        split["inputs"] += len(side_car["inputs"])
        for name in _COUNTS:
            value = len(side_car["dropped"]) if name == "dropped" else side_car[name]
            split[name] = round(split[name] + value, 3)
        if side_car["shard"]:
            facts = {"name": side_car["shard"], "clips": side_car["clips"], "sha256": side_car["sha256"]}
            split["shards"].append(facts)
        for item in side_car["inputs"]:
            if item["rejected"] is not None:
                self.reasons[reason_kind(item["rejected"])] += 1
            if item["clips"] or item["dropped"]:
                self._check_id(item)
        for record in side_car["records"]:
            if "fingerprint" in record["scores"]:
                self.fingerprints[side_car["split"]].append((record["key"], record["scores"]["fingerprint"]))
        for record in (*side_car["records"], *side_car["dropped"]):
            self.scores |= {name for name, value in record["scores"].items() if not isinstance(value, str)}
        self.dropped.update(reason_kind(record["dropped"]) for record in side_car["dropped"])
        for known, made_by in ((self.tools, side_car["tools"]), (self.captioners, side_car["captioner"])):
            if made_by is not None and made_by not in known:
                known.append(made_by)

    def _check_id(self, item: dict[str, Any]) -> None:
        """Keys are made of 12 digits of a hash; of a million inputs two may share them, once in 500 times."""
        other = self._ids.setdefault(int(item["sha1"][:12], 16), item["uri"])
        if other != item["uri"]:
            raise DataError(
                f"{item['uri']} and {other} share the id {item['sha1'][:12]}, so their clips would share "
                "keys; leave one of them out of a new dataset"
            )


def _duplicates(
    fingerprints: dict[str, list[tuple[str, str]]], max_distance: int
) -> dict[str, tuple[str, int]]:
    """Key -> (key that it nearly repeats, distance). Between validation and training the latter gives way."""
    ordered = [pair for split in reversed(SPLITS) for pair in fingerprints[split]]
    keys = [key for key, _ in ordered]
    found = find_duplicates([fingerprint for _, fingerprint in ordered], max_distance)
    return {keys[index]: (keys[other], distance) for index, other, distance in found}


def _refuse_missing(out: Path, plan: dict[str, Any]) -> None:
    stems = [stem for _, stem in planned_stems(plan)]
    missing = [(number, stem) for number, stem in enumerate(stems) if not (out / f"{stem}.json").is_file()]
    if not missing:
        return
    count = noted_slices(out)
    words = [f"{stem} (slice {number % count}/{count})" if count else stem for number, stem in missing]
    shown = ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")
    slices = sorted({number % count for number, _ in missing}) if count else []
    again = f"run slices {','.join(map(str, slices))} of {count} again" if slices else "run the build again"
    raise DataError(
        f"{out}: {len(missing)} of {len(stems)} shards are not made yet: {shown}; {again}, then --merge"
    )


def _side_cars(out: Path, plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for _, stem in planned_stems(plan):
        side_car = read_side_car(out, stem)
        if side_car is None:
            raise DataError(f"{out / stem}.tar: is missing or cut short; run the build again")
        yield side_car


def _by_count(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
