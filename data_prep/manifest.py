"""What came of a build, gathered from the side-cars of its shards.

index.jsonl    one row per clip (its record, with split and shard) and per rejected input (with the reason)
dataset.json   settings, tool versions, totals and counts per split; written last, so a folder with one is
               a complete dataset
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.config import PrepConfig
from data_prep.records import SCHEMA, reason_kind
from data_prep.shards import read_side_car
from data_prep.worklist import SPLITS, Unit
from live2diff.errors import DataError
from live2diff.files import staged_file, write_json

_COUNTS = ("clips", "frames", "seconds", "rejected")


@dataclass(frozen=True)
class Summary:
    """What a finished dataset holds.

    Attributes:
        out: its folder.
        inputs, clips, rejected, frames: counts; an input gives one or more clips or is rejected.
        seconds: playing time of the clips.
        splits: the same counts per split, and its `shards`.
        reasons: rejected inputs by kind of reason, commonest first.
    """

    out: str
    inputs: int
    clips: int
    rejected: int
    frames: int
    seconds: float
    splits: dict[str, dict[str, Any]]
    reasons: dict[str, int]


def write_manifest(out: Path, units: Sequence[Unit], config: PrepConfig) -> Summary:
    """Write `index.jsonl` and `dataset.json` for a dataset whose shards are all finished.

    Raises:
        DataError: no input gave a clip; the index is written, the manifest is not.
    """
    reasons: Counter[str] = Counter()
    tools: list[dict[str, str]] = []
    splits: dict[str, dict[str, Any]] = {
        split: {"inputs": 0, **dict.fromkeys(_COUNTS, 0), "shards": []} for split in SPLITS
    }
    with staged_file(out / "index.jsonl") as stage, open(stage, "w", encoding="utf-8") as file:
        for unit in units:
            side_car = read_side_car(out, unit)
            if side_car is None:
                raise DataError(f"{out / unit.stem}.tar: vanished during the build; run it again")
            rows = _rows(side_car)
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            reasons.update(reason_kind(row["reason"]) for row in rows if row["kind"] == "rejected")
            split = splits[unit.split]
            split["inputs"] += len(side_car["inputs"])
            for key in _COUNTS:
                split[key] = round(split[key] + side_car[key], 3)
            if side_car["shard"]:
                split["shards"].append({"name": side_car["shard"], "clips": side_car["clips"]})
            if side_car["tools"] not in tools:
                tools.append(side_car["tools"])  # more than one if a library changed between two runs
    totals = {key: round(sum(split[key] for split in splits.values()), 3) for key in ("inputs", *_COUNTS)}
    by_count = dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0])))
    if not totals["clips"]:
        kind, count = next(iter(by_count.items()))
        raise DataError(
            f"{out}: none of the {totals['inputs']} inputs gave a clip; most often ({count}): {kind}; "
            f"see {out / 'index.jsonl'}"
        )
    manifest = {
        "schema": SCHEMA,
        "config": config.content(),
        "config_hash": config.hash(),
        "tools": tools,
        "totals": totals,
        "splits": splits,
        "rejected": by_count,
    }
    write_json(out / "dataset.json", manifest)
    return Summary(out=str(out), splits=splits, reasons=by_count, **totals)


def _rows(side_car: dict[str, Any]) -> list[dict[str, Any]]:
    place = {"split": side_car["split"], "shard": side_car["shard"]}
    clips = [{"kind": "clip", **record, **place} for record in side_car["records"]]
    rejected = []
    for item in side_car["inputs"]:
        if item["rejected"] is not None:
            source = {key: value for key, value in item.items() if key not in ("rejected", "clips")}
            row = {
                "kind": "rejected",
                "reason": item["rejected"],
                "source": source,
                "split": side_car["split"],
            }
            rejected.append(row)
    return clips + rejected
