"""What a build says: a line per file and totals at the end, or the same as JSON lines for a machine."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from typing import Any

from data_prep.manifest import Summary
from data_prep.records import Outcome
from data_prep.slices import Slice


class Report:
    """Words for people, on standard output. Where there is a bar, only what needs an eye is said."""

    def note(self, text: str) -> None:
        """Something odd that is no error, or where the work stands."""
        self._say(text)

    def file(self, outcome: Outcome) -> None:
        """One source is done."""
        if needs_an_eye(outcome) or not sys.stderr.isatty():
            self._say(file_line(outcome))

    def shard(self, side_car: dict[str, Any], stem: str) -> None:
        """One shard is finished."""

    def slice_done(self, out: str, part: Slice, made: int, before: int, busy: list[str]) -> None:
        """All shards of a slice are finished, but those that another run is making."""
        self._say(f"slice {part}: {plural(made, 'shard')} made, {before} there already, in {out}")
        if busy:
            self._say(f"note: another run is making {', '.join(busy)}")
        self._say(f"next, when all slices are done: live2diff data build --merge --out {shlex.quote(out)}")

    def summary(self, summary: Summary) -> None:
        """The dataset is complete."""
        for line in closing_lines(summary):
            self._say(line)

    def _say(self, text: str) -> None:
        print(printable(text), flush=True)


class JsonReport(Report):
    """One JSON object per line; `event` says which: note, file, shard, slice or summary."""

    def note(self, text: str) -> None:
        self._event("note", text=text)

    def file(self, outcome: Outcome) -> None:
        self._event(
            "file",
            uri=outcome.source.uri,
            clips=len(outcome.clips),
            dropped=len(outcome.dropped),
            rejected=outcome.rejected,
        )

    def shard(self, side_car: dict[str, Any], stem: str) -> None:
        counts = {key: side_car[key] for key in ("clips", "frames", "seconds", "rejected", "bytes")}
        self._event("shard", stem=stem, **counts)

    def slice_done(self, out: str, part: Slice, made: int, before: int, busy: list[str]) -> None:
        self._event("slice", out=out, slice=str(part), made=made, before=before, busy=busy)

    def summary(self, summary: Summary) -> None:
        self._event("summary", **asdict(summary))

    def _event(self, kind: str, **values: Any) -> None:
        print(json.dumps({"event": kind, **values}), flush=True)


def file_line(outcome: Outcome) -> str:
    """One source and what came of it."""
    name = outcome.source.uri
    if outcome.rejected:
        return f"{name} -> rejected: {outcome.rejected}"
    notes = [f"damaged: {outcome.facts['damage']}"] if outcome.facts.get("damage") else []
    if outcome.dropped:
        notes.insert(0, f"{len(outcome.dropped)} dropped: {outcome.dropped[0]['dropped']}")
    return f"{name} -> {plural(len(outcome.clips), 'clip')}" + (f" ({'; '.join(notes)})" if notes else "")


def needs_an_eye(outcome: Outcome) -> bool:
    """Whether the line of `outcome` is worth showing above a progress bar."""
    return bool(outcome.rejected or outcome.facts.get("damage"))


def closing_lines(summary: Summary) -> list[str]:
    """Totals, where the results are, and what to do next."""
    clips, out = plural(summary.clips, "clip"), shlex.quote(summary.out)
    lines = [
        f"{plural(summary.inputs, 'file')} -> {clips}, {summary.frames} frames, {summary.seconds:.0f} s",
        "  "
        + ", ".join(f"{name}: {plural(split['clips'], 'clip')}" for name, split in summary.splits.items()),
        f"rejected: {plural(summary.rejected, 'file')}" + _kinds(summary.reasons),
    ]
    if summary.dropped:
        lines.append(f"dropped by filters: {plural(summary.dropped, 'clip')}" + _kinds(summary.dropped_for))
    if summary.duplicates:
        lines.append(f"near-duplicates: {plural(summary.duplicates, 'clip')}")
    empty = [name for name, split in summary.splits.items() if split["inputs"] and not split["clips"]]
    if empty:
        lines.append(f"note: {', '.join(empty)} has sources, but none of them gave a clip")
    return [
        *lines,
        f"dataset: {summary.out}   every clip and reason: {summary.out}/index.parquet",
        f"look at it: live2diff data report {out}",
        f"next: live2diff train experiment=NAME data.path={out}  (NAME: see conf/experiment)",
    ]


def _kinds(counts: dict[str, int]) -> str:
    return f" ({', '.join(f'{count} {kind}' for kind, count in counts.items())})" if counts else ""


def plural(count: int, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def printable(text: str) -> str:
    """`text` without characters that would move the cursor: file names are not to be trusted either."""
    return "".join(char if char.isprintable() else "?" for char in text)
