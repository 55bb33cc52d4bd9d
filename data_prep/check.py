"""Whether a dataset is what it says: hashes, counts, records, key order, and clips that decode.

files       every tar against the sha256 in its side-car; what a killed build left; what does not belong
records     under the JSON Schema, the same in tar and side-car, captions too
columns     the same keys in the same order as the clips; shapes and types; one identity per column
totals      side-cars, dataset.json, index.parquet and the work list agree
splits      no source in two of them
clips       a sample is decoded, every frame, in a child process
"""

from __future__ import annotations

import hashlib
import heapq
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.check_shard import Problem, Shard
from data_prep.dataset import planned_stems, read_plan
from data_prep.finished import Finished, faults
from data_prep.look import Looker
from data_prep.members import Place
from data_prep.progress import plural, printable
from data_prep.worklist import SPLITS
from live2diff.columns import COLUMNS, differences
from live2diff.errors import DataError
from live2diff.terminal import progress

_LINES_PER_FILE = 10  # a file that is wrong throughout need not say so a thousand times
_MOST_SHARDS = 999_999  # of a split: numbers have six digits
_LONGEST_GOP = 16  # frames between key frames: what makes reading from the middle of a clip cheap
_SUMMED = ("frames", "seconds", "rejected")  # of side-cars
_KNOWN = {
    *("plan.json", "worklist.jsonl", "dataset.json", "index.parquet", "duplicates.jsonl", "report.html"),
    *SPLITS,
}
_REWRITE = "run the same `live2diff data build` again, which writes it anew"
_REBUILD = "run the same `live2diff data build` again to go on"


@dataclass(frozen=True)
class Result:
    """What a check found. `decoded`: clips that were decoded, all of them sound unless named."""

    dataset: str
    problems: list[Problem]
    shards: int
    clips: int
    decoded: int
    columns: list[str]


def run(path: str | os.PathLike, as_json: bool = False, samples: int = 64) -> int:
    """Check the dataset at `path` and print what is wrong; returns 0, or 3 if anything is.

    Args:
        as_json: print one JSON object instead of lines.
        samples: clips to decode, drawn by their keys.

    Raises:
        UsageError: no dataset there.
        DataError: a build that is not finished.
    """
    result = check(path, samples)
    if as_json:
        print(json.dumps({"ok": not result.problems, **asdict(result)}, indent=1))
    else:
        print("\n".join(map(printable, _lines(result))))
    return DataError.exit_code if result.problems else 0


def check(path: str | os.PathLike, samples: int = 64) -> Result:
    """See `run`."""
    dataset = Finished(path)
    return _Check(dataset, samples).result()


class _Check:
    """Goes over the shards once and keeps what has to be compared across them."""

    def __init__(self, dataset: Finished, samples: int):
        self._dataset, self._samples = dataset, samples
        self._problems: list[Problem] = []
        self._sums: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self._found: dict[str, list[str]] = {split: [] for split in SPLITS}  # shards that have a tar
        self._frames: dict[tuple[str, str], int] = {}  # (kind, key) -> frames
        self._splits: dict[str, str] = {}  # source -> split
        self._inputs: Counter[tuple[str, str]] = Counter()
        self._rejected: Counter[str] = Counter()
        self._columns: dict[str, dict[str, Any]] = defaultdict(dict)  # column -> stem -> identity
        self._drawn: list[tuple[int, str, Path, Place, dict[str, Any]]] = []  # a heap
        self._clips = 0
        self._whole = True  # every side-car could be read

    def result(self) -> Result:
        folder = self._dataset.folder
        planned = _planned(folder)
        self._problems += _strangers(folder, planned)
        stems = sorted(
            f"{split}/{path.stem}" for split in SPLITS for path in folder.glob(f"{split}/clips-??????.json")
        )
        with progress("shards", len(stems), unit="shards") as advance:
            for stem in stems:
                shard = Shard(folder, stem)
                self._problems += shard.check()
                self._count(shard)
                advance()
        absent = list(self._absent(planned, stems))
        self._problems += absent
        self._problems += self._identities()
        if not absent and self._whole:  # else the sums differ, which says nothing new
            self._problems += self._worklist()
            self._problems += self._totals()
            self._problems += self._index()
            self._problems += self._duplicates()
        self._problems += self._decode()
        return Result(
            dataset=str(folder),
            problems=self._problems,
            shards=sum(map(len, self._found.values())),
            clips=self._clips,
            decoded=len(self._drawn),
            columns=sorted(self._columns),
        )

    def _count(self, shard: Shard) -> None:
        """Keep what is compared across shards."""
        split = shard.stem.partition("/")[0]
        side_car = shard.side_car
        self._whole = self._whole and bool(side_car)
        if not side_car:
            return
        records, dropped, inputs = (side_car[name] for name in ("records", "dropped", "inputs"))
        if records:
            self._found[split].append(f"{shard.stem}.tar")
        sums = {"inputs": len(inputs), "clips": len(records), "dropped": len(dropped)}
        self._sums[split].update({**sums, **{name: side_car[name] for name in _SUMMED}})
        for kind, rows in (("clip", records), ("dropped", dropped)):
            for row in rows:
                self._frames[kind, row["key"]] = row["frames"]
        for row in inputs:
            self._inputs[shard.stem, row["uri"]] += 1
            if row.get("rejected"):
                self._rejected[row["uri"]] += 1
        for key, (place, record) in shard.clips.items():
            other = self._splits.setdefault(record["source"]["id"], split)
            if other != split:
                self._say(
                    f"{shard.stem}.tar",
                    key,
                    f"its source is in {other} too: validation would see what was trained on",
                    "choose another val_fraction and build a new dataset",
                )
            # The keys' hashes draw the sample: the same clips every time, from all shards.
            order = -int(hashlib.sha1(key.encode()).hexdigest(), 16)
            heapq.heappush(self._drawn, (order, key, shard.tar, place, record))
            if len(self._drawn) > self._samples:
                heapq.heappop(self._drawn)
        self._clips += len(records)
        for column, made_by in shard.columns.items():
            self._columns[column][shard.stem] = made_by

    def _say(self, file: str, key: str | None, what: str, todo: str) -> None:
        self._problems.append(Problem(file, key, what, todo))

    def _absent(self, planned: list[str], stems: list[str]) -> Iterator[Problem]:
        """Planned shards that have no side-car."""
        folder, made = self._dataset.folder, set(stems)
        for stem in planned:
            if stem not in made:
                tar = f"{stem}.tar"
                if (folder / tar).exists():
                    yield Problem(tar, None, "has no side-car, so it is not finished", _REBUILD)
                else:
                    yield Problem(f"{stem}.json", None, "is missing: the shard was not made", _REBUILD)

    def _worklist(self) -> Iterator[Problem]:
        """Every source of the work list is an input of its shard. A dataset may be passed on without it."""
        name = "worklist.jsonl"
        if not (self._dataset.folder / name).exists():
            return
        try:
            with open(self._dataset.folder / name, encoding="utf-8") as file:
                planned = Counter((row["shard"], row["uri"]) for row in map(json.loads, file))
        except (OSError, ValueError, KeyError, TypeError):
            yield Problem(name, None, "cannot be read as the list of sources", "build a new dataset")
            return
        for stem, uri in planned - self._inputs:
            yield Problem(name, None, f"{uri} is not among the inputs of {stem}", _REBUILD)
        for stem, uri in self._inputs - planned:
            yield Problem(name, None, f"does not list {uri}, an input of {stem}", "build a new dataset")

    def _totals(self) -> Iterator[Problem]:
        """dataset.json against the sums over the side-cars."""
        manifest = self._dataset.manifest
        found = [name for names in self._found.values() for name in names]
        for name in sorted({*found} ^ {*_listed(manifest)}):
            what = f"does not list {name}" if name in found else f"lists {name}, which holds no clip"
            yield Problem("dataset.json", None, what, _REWRITE)
        for split in SPLITS:
            stated = manifest["splits"].get(split, {})
            for name, value in self._sums[split].items():
                if not _close(stated.get(name, 0), value):
                    what = f"{split}: says {stated.get(name, 0)} {name}, the shards hold {_plain(value)}"
                    yield Problem("dataset.json", None, what, _REWRITE)
        columns = manifest.get("columns", {})
        for column in sorted({*columns, *self._columns}):
            stems = self._columns.get(column, {})
            held = {split: sum(stem.startswith(f"{split}/") for stem in stems) for split in SPLITS}
            stated = columns.get(column, {}).get("shards")
            if stated != held:
                what = f"says the column {column} is there for {stated} shards, it is for {held}"
                yield Problem("dataset.json", None, what, _REWRITE)
        names = sorted({*self._sums["train"], *self._sums["val"], *manifest["totals"]} - {"duplicates"})
        for name in names:
            value = self._sums["train"][name] + self._sums["val"][name]
            stated = manifest["totals"].get(name)
            if not _close(stated, value):
                what = f"says {stated} {name} in all, the shards hold {_plain(value)}"
                yield Problem("dataset.json", None, what, _REWRITE)

    def _index(self) -> Iterator[Problem]:
        """A row per clip, dropped clip and rejected input, and no other."""
        index = self._dataset.index.select(["kind", "key", "uri", "frames"]).to_pydict()
        listed: dict[tuple[str, str], int] = {}
        rejected: Counter[str] = Counter()
        for kind, key, uri, frames in zip(*index.values(), strict=True):
            if kind == "rejected":
                rejected[uri] += 1
            elif (kind, key) in listed:
                yield Problem("index.parquet", key, "has two rows", _REWRITE)
            else:
                listed[kind, key] = frames
        for kind, key in self._frames.keys() - listed.keys():
            yield Problem("index.parquet", key, f"has no row, but is a {kind} in its shard", _REWRITE)
        for kind, key in listed.keys() - self._frames.keys():
            yield Problem("index.parquet", key, f"is listed as a {kind}, but in no shard", _REWRITE)
        for (kind, key), frames in listed.items():
            expected = self._frames.get((kind, key), frames)
            if frames != expected:
                yield Problem("index.parquet", key, f"says {frames} frames, its shard {expected}", _REWRITE)
        for uri in {*(rejected - self._rejected), *(self._rejected - rejected)}:
            what = f"{uri} is rejected in its shard {self._rejected[uri]} times, here {rejected[uri]}"
            yield Problem("index.parquet", None, what, _REWRITE)

    def _identities(self) -> Iterator[Problem]:
        """A column is there for all shards or none, and made by one model."""
        stated = self._dataset.manifest.get("columns", {})
        shards = [name.removesuffix(".tar") for names in self._found.values() for name in names]
        for column, made in self._columns.items():
            for stem in shards:
                if stem not in made:
                    name = stem.replace("clips-", f"{column}-") + ".tar"
                    again = f"run the build again with columns=[{column}]"
                    yield Problem(name, None, "is missing, other shards have this column", again)
            known = {stem: identity for stem, identity in made.items() if identity}
            said = {name: value for name, value in stated.get(column, {}).items() if name != "shards"}
            for stem, identity in known.items():
                for difference in differences(said or next(iter(known.values())), identity)[:1]:
                    name = stem.replace("clips-", f"{column}-")
                    what = f"was made in another way: {difference}"
                    again = f"remove {name}.* and run the build again with columns=[{column}]"
                    yield Problem(f"{name}.json", None, what, again)

    def _duplicates(self) -> Iterator[Problem]:
        """What training passes over must be there."""
        path = self._dataset.folder / "duplicates.jsonl"
        if not path.exists():
            if self._dataset.manifest["config"].get("max_duplicate_distance") is not None:
                yield Problem(path.name, None, "is missing: training would take duplicates", _REWRITE)
            return
        try:
            with open(path, encoding="utf-8") as file:
                pairs = [(row["key"], row["duplicate_of"]) for row in map(json.loads, file)]
        except (OSError, ValueError, KeyError, TypeError):
            yield Problem(path.name, None, "cannot be read", _REWRITE)
            return
        for pair in pairs:
            for key in pair:
                if ("clip", key) not in self._frames:
                    yield Problem(path.name, str(key), "is no clip of this dataset", _REWRITE)

    def _decode(self) -> Iterator[Problem]:
        drawn = sorted(self._drawn, key=lambda item: (str(item[2]), item[3]))
        with Looker() as looker, progress("decoding", len(drawn), unit="clips") as advance:
            for _, key, tar, place, record in drawn:
                seen = looker(tar, place)
                fault = seen.fault
                if not fault:
                    pairs = [
                        ("frames", seen.frames, record["frames"]),
                        ("frames per second", round(seen.fps, 3), round(record["fps"], 3)),
                        ("pixels", "x".join(map(str, seen.size)), "x".join(map(str, record["size"]))),
                        ("codec", f"{seen.codec} {seen.pixel_format}", "h264 yuv420p"),
                        ("streams", seen.streams, 1),
                    ]
                    fault = next((f"has {a} {name}, not {b}" for name, a, b in pairs if a != b), None)
                if not fault and seen.gop > _LONGEST_GOP:
                    fault = f"has key frames {seen.gop} frames apart, more than {_LONGEST_GOP}"
                if fault:
                    name = tar.relative_to(self._dataset.folder).as_posix()
                    stem = name.removesuffix(".tar")
                    yield Problem(name, key, fault, f"remove {stem}.* and {_REBUILD}")
                advance()


def _strangers(folder: Path, planned: list[str]) -> Iterator[Problem]:
    """Files that are neither part of a dataset nor hidden, and what a killed process left half-written."""
    known = set(planned)
    for path in sorted([*folder.iterdir(), *(p for split in SPLITS for p in folder.glob(f"{split}/*"))]):
        name = path.relative_to(folder).as_posix()
        kind, _, number = path.stem.rpartition("-")
        if path.name.startswith((".staged-", ".replaced-")):
            what = "was left half-written by a build that was killed"
            yield Problem(name, None, what, "remove it, if no build is running")
        elif path.name.startswith(".") or name in _KNOWN:
            continue
        elif path.suffix not in (".tar", ".json") or kind not in ("clips", *COLUMNS):
            yield Problem(name, None, "does not belong to the dataset", "move it elsewhere")
        elif f"{path.parent.name}/clips-{number}" not in known:
            yield Problem(name, None, "belongs to a shard that was never planned", "move it elsewhere")


def _planned(folder: Path) -> list[str]:
    """Stems of the shards that there should be."""
    plan = read_plan(folder)
    numbers = {"type": "integer", "minimum": 0, "maximum": _MOST_SHARDS}
    shards = {"type": "object", "additionalProperties": numbers}
    schema = {"required": ["shards"], "properties": {"shards": shards}}
    for fault in faults(plan, schema):
        raise DataError(f"{folder / 'plan.json'}: is not a plan ({fault}); build a new dataset")
    return [stem for _, stem in planned_stems(plan)]


def _listed(manifest: dict[str, Any]) -> list[str]:
    """Names of the shards in dataset.json."""
    return [shard["name"] for split in manifest["splits"].values() for shard in split["shards"]]


def _lines(result: Result) -> list[str]:
    """Problems, not too many of one file, and a closing line."""
    lines, shown = [], Counter[str]()
    for problem in result.problems:
        shown[problem.file] += 1
        if shown[problem.file] <= _LINES_PER_FILE:
            lines.append(problem.line())
    for file, count in shown.items():
        if count > _LINES_PER_FILE:
            lines.append(f"{file}: {count - _LINES_PER_FILE} more like these; --json lists all")
    columns = f", columns {', '.join(result.columns)}" if result.columns else ""
    seen = (
        f"{plural(result.shards, 'shard')}, {plural(result.clips, 'clip')}{columns}, {result.decoded} decoded"
    )
    if result.problems:
        return [*lines, f"{result.dataset}: {plural(len(result.problems), 'problem')} in {seen}"]
    return [
        f"{result.dataset}: sound: {seen}",
        f"next: live2diff data report {result.dataset}",
    ]


def _close(stated: Any, value: float) -> bool:
    return isinstance(stated, int | float) and abs(stated - value) < 0.01


def _plain(value: float) -> str:
    return f"{value:.10g}"
