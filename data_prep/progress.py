"""What a build says on the terminal: a line per file, and totals at the end."""

from __future__ import annotations

from data_prep.manifest import Summary
from data_prep.records import Outcome


def file_line(outcome: Outcome) -> str:
    """One source and what came of it."""
    name = outcome.item.source.uri
    if outcome.rejected:
        return printable(f"{name} -> rejected: {outcome.rejected}")
    damage = outcome.result["facts"]["damage"]
    return printable(
        f"{name} -> {plural(len(outcome.clips), 'clip')}" + (f" (damaged: {damage})" if damage else "")
    )


def needs_an_eye(outcome: Outcome) -> bool:
    """Whether the line of `outcome` is worth showing above a progress bar."""
    return bool(outcome.rejected or outcome.result["facts"]["damage"])


def closing_lines(summary: Summary) -> list[str]:
    """Totals, where the results are, and what to do next."""
    reasons = ", ".join(f"{count} {kind}" for kind, count in summary.reasons.items())
    clips = plural(summary.clips, "clip")
    lines = [
        f"{plural(summary.inputs, 'file')} -> {clips}, {summary.frames} frames, {summary.seconds:.0f} s",
        "  "
        + ", ".join(f"{name}: {plural(split['clips'], 'clip')}" for name, split in summary.splits.items()),
        f"rejected: {plural(summary.rejected, 'file')}" + (f" ({reasons})" if reasons else ""),
        f"dataset: {summary.out}   every clip and reason: {summary.out}/index.jsonl",
    ]
    empty = [name for name, split in summary.splits.items() if split["inputs"] and not split["clips"]]
    if empty:
        lines.append(f"note: {', '.join(empty)} has sources, but none of them gave a clip")
    return [
        *lines,
        f"next: live2diff train experiment=NAME data.path={summary.out}  (NAME: see conf/experiment)",
    ]


def plural(count: int, noun: str) -> str:
    """`1 clip`, `2 clips`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def printable(text: str) -> str:
    """`text` without characters that would move the cursor: file names are not to be trusted either."""
    return "".join(char if char.isprintable() else "?" for char in text)
