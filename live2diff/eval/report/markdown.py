"""The report as Markdown: its numbers, to be pasted into an issue or a paper's draft."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

from live2diff.eval.report.again import commands
from live2diff.eval.report.ranking import ranking_figure, worst_frames, worst_videos
from live2diff.eval.report.summary import comparison
from live2diff.eval.report.words import NONE, flat, interval, show, title_of, with_unit
from live2diff.eval.results import Results, signature_text

_ROWS = 100  # of a table


def write_markdown(results: Results, out: str) -> str:
    """Tables of the figures, the worst frames and the videos, what was left out, and how to repeat it."""
    figure = ranking_figure(results)
    order = worst_videos(results, figure)
    parts = [
        "# Evaluation",
        f"Output {text(results.pred)}, source {text(results.source)}, live2diff {text(results.version)}.",
        "## Figures",
        _table(
            ["figure", "this run", "95 % interval", "better", "videos", "paper", "beside the paper"],
            _figures(results),
        ),
        "Signatures:",
        "\n".join(
            f"- {text(name)}: {text(signature_text(f.signature))}" for name, f in results.figures.items()
        ),
    ]
    worst = worst_frames(results, figure)
    if worst and figure:
        rows = [(results.videos[w.video].name, str(w.frame), show(w.value)) for w in worst]
        parts += ["## Worst frames", _table(["video", "frame", title_of(figure)], rows)]
    names = [name for name in results.figures if any(name in video.values for video in results.videos)]
    if order and names:
        rows = [
            (video.name, str(video.frames), *(show(video.values.get(name)) for name in names))
            for video in (results.videos[place] for place in order[:_ROWS])
        ]
        parts += ["## Videos", _table(["video", "frames", *map(title_of, names)], rows)]
        parts += [f"and {len(order) - _ROWS} more in results.json"] if len(order) > _ROWS else []
    if results.skipped:
        skipped = [(skip.name, skip.reason) for skip in results.skipped[:_ROWS]]
        parts += ["## Left out", _table(["video", "reason"], skipped)]
        more = len(results.skipped) - _ROWS
        parts += [f"and {more} more in results.json"] if more > 0 else []
    lines = textwrap.indent("\n".join(commands(results, out)), "    ", lambda _: True)
    parts += ["## Measuring it again", lines, "Where this ran:"]
    parts += ["\n".join(f"- {text(key)}: {text(value)}" for key, value in flat(results.environment))]
    return "\n\n".join(part for part in parts if part) + "\n"


def text(words: object) -> str:
    """Words as Markdown that shows them: on one line, without markup or HTML in them."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in str(words)).split())
    # The last two: a bare address would become a link.
    return re.sub(r"([\\`*_{}\[\]()#+!|<>~&$^@]|:(?=/)|(?<=www)\.)", r"\\\1", plain)


def _figures(results: Results) -> Iterable[Sequence[str]]:
    for name, figure in results.figures.items():
        paper, verdict, reasons = comparison(name, figure)
        mean = with_unit(figure)
        videos = str(figure.videos or NONE)
        beside = ": ".join(filter(None, (verdict, reasons)))
        yield title_of(name), mean, interval(figure), figure.better, videos, paper, beside


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [" | ".join(headings), " | ".join(["---"] * len(headings))]
    lines += [" | ".join(map(text, row)) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)
