"""A table of the paper beside ours: for the terminal, and as Markdown for docs/ablations.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from train.ablate.claims import Finding, Values
from train.ablate.intervals import LEAST, interval
from train.ablate.measure import KINDS
from train.ablate.rows import Row

_NAMES = {
    "depth_mse": "depth MSE",
    "depth_mse_aligned": "depth MSE, aligned",
    "latent_temporal": "latents alike",
    "warp_error": "warp error",
    "flicker": "flicker",
    "psnr": "PSNR, dB",
}
# The figures that stand for one of the paper's: what that is called, and its decimals there.
_PAPER = {"depth_mse": ("paper", 2), "latent_temporal": ("paper: CLIP", 2), "warp_error": ("paper", 4)}
_NONE = "–"
_WIDE = 170  # characters, where the output is no terminal


@dataclass(frozen=True)
class Shown:
    """A table in words.

    Attributes:
        made: how it came about, in sentences.
        rows: cells; in that of a figure, its interval is a second line.
        findings: what was claimed and whether it holds, each with the numbers that say so.
    """

    title: str
    made: Sequence[str]
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    findings: Sequence[tuple[str, Sequence[str]]]

    def markdown(self, where: str, command: str) -> str:
        """As Markdown, with the machine and the command that made it."""
        lines = [_line(self.headings), _line(["---"] * len(self.headings))]
        lines += [_line([cell.replace("\n", " ") for cell in row]) for row in self.rows]
        findings = [f"- {text}\n" + "\n".join(f"    - {it}" for it in parts) for text, parts in self.findings]
        made = "\n".join([*self.made, where])
        parts = [f"### {self.title}", made, "\n".join(lines), "\n".join(findings), f"    {command}"]
        return "\n\n".join(parts) + "\n"

    def print(self) -> None:
        console = Console(highlight=False)
        console = console if console.is_terminal else Console(width=_WIDE, highlight=False)
        table = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for place, heading in enumerate(self.headings):
            table.add_column(heading, justify="left" if place < 2 else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        console.print(table)
        print("\n".join([*self.made, ""]))
        for text, parts in self.findings:
            print("\n    ".join([text, *parts]))


def headings() -> list[str]:
    """Of a table of all figures; an arrow says what is better."""
    found = ["row", ""]
    for figure, kind in KINDS.items():
        found.append(f"{_NAMES[figure]} {'↑' if kind.better == 'higher' else '↓'}")
        if figure in _PAPER:
            found.append(_PAPER[figure][0])
    return found


def cells(row: Row, values: Values) -> list[str]:
    """A row of it; `values` (seeds, scenes) by figure."""
    found = [row.label, row.about]
    for figure in KINDS:
        known = np.isfinite(values[figure]).all()
        found.append(mean_cell(values[figure].mean(), interval(values[figure])) if known else _NONE)
        if figure in _PAPER:
            value = row.paper.get(figure)
            found.append(_NONE if value is None else f"{value:.{_PAPER[figure][1]}f}")
    return found


def mean_cell(mean: float, ends: tuple[float, float] | None) -> str:
    """A mean, and its interval on a line of its own."""
    return f"{mean:#.4g}" + (f"\n({ends[0]:#.3g}–{ends[1]:#.3g})" if ends else "")


def words_of(finding: Finding, rows: Mapping[str, Row]) -> tuple[str, list[str]]:
    """A claim and its verdict; and every difference it stands on, the paper's beside ours."""
    figure, parts = finding.claim.figure, []
    for found in finding.differences:
        text = f"{found.better} - {found.worse}: {signed(found.mean, found.low, found.high)}, {found.verdict}"
        paper = [rows[label].paper.get(figure) for label in (found.better, found.worse)]
        if paper[0] is not None and paper[1] is not None:
            text += f"; paper {paper[0] - paper[1]:+.{_PAPER[figure][1]}f}"
        parts.append(text)
    return f"{finding.claim.text} ({_NAMES[figure]}): {finding.verdict}", parts


def signed(mean: float, low: float | None, high: float | None) -> str:
    """A difference and its interval."""
    if low is None or high is None:
        return f"{mean:+#.3g} (no interval: fewer than {LEAST} scenes)"
    return f"{mean:+#.3g} ({low:+#.3g} to {high:+#.3g})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
