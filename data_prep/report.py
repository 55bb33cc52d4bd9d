"""A dataset on one page: what is in it, what it looks like, what was left out and why.

The page is a single file that opens offline. Pictures are drawn from a sample, so that it stays at a few
megabytes for a dataset of any size; all numbers count everything.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_prep.finished import Finished, codes, counts, numbers
from data_prep.look import Looker
from data_prep.progress import plural, printable
from data_prep.sheets import Sheets, depth_values
from live2diff.errors import UsageError
from live2diff.files import staged_file
from live2diff.html import Html, contents, element, histogram, page, show_number, table
from live2diff.terminal import progress

_CLIPS, _CUTS, _PAIRS = 48, 16, 12  # figures at most
_ROWS = 200  # of a table of files
_COUNTS = ("inputs", "clips", "frames", "seconds", "dropped", "rejected")
_CHARS = 300  # of a value in a table

# Score -> title and unit of its histogram.
_SCORES = {
    "motion": ("Motion", "short sides of the picture per second"),
    "brightness": ("Brightness", "mean luma, 0 to 1"),
    "contrast": ("Contrast", "standard deviation of luma, 0 to 0.5"),
    "letterbox": ("Letterbox", "share of the picture that is bars"),
}


def run(path: str | os.PathLike, out: str | os.PathLike | None = None) -> int:
    """Write the report on the dataset at `path` to `out` (default: `report.html` in it); returns 0.

    Raises:
        UsageError: no dataset at `path`, or `out` is a folder.
        DataError: it is not finished or cannot be read.
    """
    dataset = Finished(path)
    target = Path(out) if out else dataset.folder / "report.html"
    if target.is_dir():
        raise UsageError(f"--out {target}: is a folder; name a file, such as {target / 'report.html'}")
    text = write_page(dataset)
    with staged_file(target) as stage:
        stage.write_text(text, encoding="utf-8")
    print(f"report: {target}  ({len(text.encode()) / 1e6:.1f} MB, opens in any browser)")
    print(f"next: live2diff data show {dataset.folder} KEY  looks at one clip of it")
    return 0


def write_page(dataset: Finished) -> str:
    """The whole report as HTML."""
    with Looker() as looker:
        sheets = Sheets(dataset, looker)
        sample = sheets.sample(_CLIPS)
        with progress("report", None, unit="figures") as advance:

            def count(figures: Iterable[Html]) -> list[Html]:
                done = []
                for figure in figures:
                    done.append(figure)
                    advance()
                return done

            contact = count(sheets.contact(sample))
            cuts = count(sheets.cuts(_CUTS))
            pairs = count(sheets.duplicates(_PAIRS))
    sections = [
        ("numbers", "Distributions", _distributions(dataset, sample)),
        ("clips", "Clips", _gallery(contact, dataset.clips.num_rows, "clips", "The dataset holds no clip.")),
        ("cuts", "Cuts", _gallery(cuts, None, "cuts", "No two neighbouring shots of one source are in it.")),
        ("duplicates", "Near-duplicates", _duplicates(dataset, pairs)),
        ("dropped", "Dropped clips", _left_out(dataset.kind("dropped"), "dropped", "No clip was dropped.")),
        (
            "rejected",
            "Rejected inputs",
            _left_out(dataset.kind("rejected"), "rejected", "No input was rejected."),
        ),
        ("sources", "Sources", _sources(dataset)),
        ("splits", "Splits", _splits(dataset)),
        ("settings", "Settings and tools", _settings(dataset)),
    ]
    name = printable(dataset.folder.resolve().name)
    body = [
        element("header", element("h1", f"Dataset {name}"), _tiles(dataset)),
        contents([(anchor, heading) for anchor, heading, _ in sections]),
    ]
    body += [
        element("section", element("h2", heading, id=anchor), *parts) for anchor, heading, parts in sections
    ]
    return page(f"Dataset {name}", *body)


def _tiles(dataset: Finished) -> Html:
    seconds = float(_durations(dataset.clips).sum())
    hours = f"{show_number(seconds / 3600)} h" if seconds >= 3600 else f"{show_number(round(seconds))} s"
    tiles = [
        ("inputs", dataset.manifest["totals"].get("inputs", "?")),
        ("clips", dataset.clips.num_rows),
        ("of video", hours),
        ("frames", int(numbers(dataset.clips, "frames").sum())),
        ("dropped clips", dataset.kind("dropped").num_rows),
        ("rejected inputs", dataset.kind("rejected").num_rows),
        ("near-duplicates", _known(dataset.clips, "duplicate_of")),
    ]
    items = [
        element("li", element("b", show_number(value) if isinstance(value, int) else value), name)
        for name, value in tiles
    ]
    return element("ul", *items, class_="tiles")


def _distributions(dataset: Finished, sample: Sequence[dict[str, Any]]) -> list[Html]:
    clips = dataset.clips
    charts = [histogram(_durations(clips), "Duration", "seconds")]
    for name in clips.column_names:
        if name.startswith("score_"):
            title, unit = _SCORES.get(name.removeprefix("score_"), (name.removeprefix("score_"), ""))
            charts.append(histogram(numbers(clips, name), title, unit))
    charts.append(histogram(numbers(clips, "fps"), "Frame rate", "frames per second"))
    if "depth" in dataset.columns:
        values = depth_values(dataset, sample)
        charts.append(histogram(values, "Raw inverse depth", "far to near, as the net gives it", "pixels"))
    notes = [element("p", "All clips that are kept; dropped ones are listed further down.", class_="soft")]
    return [*notes, element("div", *charts, class_="charts")]


def _gallery(figures: Sequence[Html], total: int | None, noun: str, none: str) -> list[Html]:
    if not figures:
        return [element("p", none)]
    of = f" of {total:,}" if total is not None else ""
    note = f"{len(figures)}{of} {noun}, drawn at random, from as many sources as there is room for."
    return [element("p", note, class_="soft"), element("div", *figures, class_="sheet")]


def _duplicates(dataset: Finished, pairs: Sequence[Html]) -> list[Html]:
    found = _known(dataset.clips, "duplicate_of")
    if not found:
        return [element("p", "No two clips look alike.")]
    skipped = (dataset.folder / "duplicates.jsonl").is_file()
    fate = "training passes over them" if skipped else "max_duplicate_distance is not set, so they are kept"
    note = f"Clips that look like an earlier one: {found:,}; {fate}. The closest pairs:"
    return [element("p", note), element("div", *pairs, class_="sheet")]


def _left_out(rows: pa.Table, verb: str, none: str) -> list[Html]:
    """Reasons with counts, then the files."""
    if not rows.num_rows:
        return [element("p", none)]
    kinds: Counter[str] = Counter()
    for reason, count in counts(rows, "reason"):
        kinds[reason.partition(":")[0]] += count
    parts = [table(["reason", "count"], kinds.most_common())]
    names = ["uri", "reason"]
    if verb == "dropped":
        names = ["key", *names, *(name for name in rows.column_names if name.startswith("score_"))]
    shown = rows.select(names).slice(0, _ROWS).to_pylist()
    headings = [name.removeprefix("score_").replace("uri", "source") for name in names]
    listed = table(headings, ([_cell(name, row[name]) for name in names] for row in shown))
    more = rows.num_rows - len(shown)
    rest = [element("p", f"and {more:,} more in index.parquet", class_="soft")] if more > 0 else []
    heading = element("summary", f"the first {len(shown):,}" if rest else f"all {rows.num_rows:,}")
    return [*parts, element("details", heading, listed, *rest, open="" if rows.num_rows <= 30 else None)]


def _sources(dataset: Finished) -> list[Html]:
    """One row of each source that gave a clip, counted by what it is."""
    clips = dataset.clips
    _, first = np.unique(codes(clips, "source_id"), return_index=True)
    rows = clips.take(pa.array(first))
    special = {
        "high dynamic range, brought to standard": np.nansum(numbers(rows, "hdr")),
        "interlaced": np.nansum(numbers(rows, "interlaced")),
        "rotated by their metadata": (numbers(rows, "rotation") != 0).sum(),
        "damaged in part": _known(rows, "damage"),
    }
    noted = [(name, int(count)) for name, count in special.items() if count]
    short = np.minimum(numbers(rows, "source_width"), numbers(rows, "source_height"))
    charts = [
        histogram(numbers(rows, "source_duration_s"), "Length", "seconds", "sources"),
        histogram(short, "Short side", "pixels", "sources"),
    ]
    return [
        element("p", f"{plural(rows.num_rows, 'source')} gave clips.", class_="soft"),
        element("div", *charts, class_="charts"),
        element(
            "div",
            table(["codec", "sources"], counts(rows, "codec")),
            table(["caption from", "clips"], counts(clips, "caption_source")),
            table(["of note", "sources"], noted) if noted else "",
            class_="tables",
        ),
    ]


def _splits(dataset: Finished) -> list[Html]:
    rows = []
    for name, split in dataset.manifest["splits"].items():
        sums = [split.get(key, 0) for key in _COUNTS]
        rows.append([name, len(split["shards"]), *sums])
    note = "A source is in one split only, with all its clips."
    return [
        element("p", note, class_="soft"),
        table(["split", "shards", *_COUNTS], rows),
    ]


def _settings(dataset: Finished) -> list[Html]:
    manifest = dataset.manifest
    known = ("schema", "totals", "splits", "rejected", "dropped", "config")
    rest = {key: value for key, value in manifest.items() if key not in known}
    tables = [
        table([heading, "value"], ([key, _plain(value)] for key, value in _flat(tree)))
        for heading, tree in (("setting", manifest["config"]), ("made by", rest))
    ]
    return [element("div", *tables, class_="tables")]


def _flat(tree: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Leaves of nested dicts and lists, under dotted names; what is alone in its list needs no number."""
    if isinstance(tree, list) and len(tree) == 1:
        tree = tree[0]
    if isinstance(tree, dict):
        pairs: Iterable[tuple[Any, Any]] = tree.items()
    elif isinstance(tree, list) and any(isinstance(item, dict | list) for item in tree):
        pairs = enumerate(tree)
    else:
        yield prefix, tree
        return
    for key, value in pairs:
        yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))


def _plain(value: Any) -> str:
    # A seed or a year needs no thousands separator.
    return str(_short("none" if value is None else str(value)))


def _cell(name: str, value: Any) -> Any:
    return element("span", value, class_="key") if name == "key" else _short(value)


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(value) > _CHARS:
        return value[:_CHARS] + " …"
    return "" if value is None else value


def _durations(clips: pa.Table) -> np.ndarray:
    return numbers(clips, "frames") / numbers(clips, "fps")


def _known(rows: pa.Table, name: str) -> int:
    return rows.num_rows - rows.column(name).null_count
