"""The figures of `bench stream` as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_WAYS = {
    "ours": "live2diff",
    "listing": "paper's listings",
    "no_cache": "no cache",
    "chunks": "diffusers, 16 at a time",
}
_COUNTS = {"operators": "operators", "launches": "launches", "host_syncs": "host syncs"}


def stream_table(lines: Sequence[dict[str, Any]]) -> Table:
    counts = [name for name in _COUNTS if name in lines[0]]
    table = _table(
        "End to end, from picture to picture",
        ["T", "size", "fps", "p50", "p95", "p99", "first frame", "delay", "memory", "cache"]
        + [_COUNTS[name] for name in counts],
    )
    for line in lines:
        table.add_row(
            str(line["rows"]),
            _size(line),
            f"{line['fps']:.3g}",
            *_percentiles(line),
            f"{line['first_frame_s']:.3g} s",
            _ms(line["delay_ms"]),
            _bytes(line["peak_bytes"]),
            _bytes(line["memory_bytes"]),
            *(str(line[name]) for name in counts),
        )
    return table


def unet_table(lines: Sequence[dict[str, Any]]) -> Table:
    table = _table(
        "The UNet alone, for one frame",
        ["T", "size", "way", "p50", "p95", "p99", "core-s", "times ours", "the same in core-s", "achieved"],
    )
    for line in lines:
        achieved = ""
        if "tflops" in line:
            share = f"{100 * line['of_ceiling']:.0f} % of the nearer ceiling"
            achieved = f"{line['tflops']:.3g} TFLOP/s, {line['gb_per_s']:.3g} GB/s, {share}"
        table.add_row(
            str(line["rows"]),
            _size(line),
            f"{_WAYS[line['way']]} ({line['timed_calls']})",
            *_percentiles(line),
            f"{line['core_s']:.3g}",
            f"{line['times_ours']:.2f}",
            f"{line['times_ours_core']:.2f}",
            achieved,
        )
    return table


def show(*tables: Table) -> None:
    # Wide enough for all columns where the output is no terminal.
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    for table in tables:
        console.print(table)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, justify="left" if name in ("way", "achieved") else "right")
    return table


def _size(line: dict[str, Any]) -> str:
    return "{}x{}".format(*line["size"])


def _percentiles(line: dict[str, Any]) -> list[str]:
    return [_ms(line[name]) for name in ("p50_ms", "p95_ms", "p99_ms")]


def _ms(value: float) -> str:
    return f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
