"""One offline HTML page: safe markup, tables, pictures and histograms, without a library.

Text is hostile until it is `Html`: `element` escapes every child and attribute that is a plain string. The
page carries its own style and a content policy that forbids every request and every script but the one it was
made with, so that a name or caption which slipped through could still load and run nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Iterable, Sequence
from typing import TypeGuard

import numpy as np

_VOID = frozenset(("br", "img", "input", "link", "meta"))  # elements without an end tag

_STYLE = """
:root { color-scheme: light dark;
  --ground: #fbfaf8; --card: #fff; --ink: #23221f; --soft: #6b6862; --line: #e2ded6; --bar: #3f6f8f;
  --mark: #a4471f; }
@media (prefers-color-scheme: dark) { :root {
  --ground: #171716; --card: #201f1e; --ink: #e7e4dd; --soft: #a29e95; --line: #3a3835; --bar: #7fb2d3;
  --mark: #e08d63; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 5rem; max-width: 74rem; background: var(--ground);
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; overflow-wrap: anywhere; }
.soft, figcaption { color: var(--soft); font-size: .875rem; }
a { color: var(--bar); }
code, .key { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: .84em;
  overflow-wrap: anywhere; }
.key { white-space: nowrap; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; margin: 1rem 0 0; padding: 0; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { padding: .3rem 1.1rem .3rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
thead th { color: var(--soft); font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 500; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .7rem;
  margin: 1.2rem 0; padding: 0; list-style: none; }
.tiles li, figure { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .8rem; }
.tiles b { display: block; font-size: 1.45rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(30rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; }
figcaption { margin-top: .45rem; overflow-wrap: anywhere; }
figcaption p { margin: .1rem 0; }
figcaption .said { color: var(--ink); }
figure h3 { margin: 0 0 .4rem; }
.strip { display: flex; gap: 3px; }
.strip .apart { margin-left: 9px; }
.tables { display: flex; flex-wrap: wrap; gap: 0 3rem; align-items: start; }
.strip img { display: block; width: auto; height: auto; max-width: calc(25% - 5px); max-height: 9rem; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); gap: 1rem; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; }
svg .bar { fill: var(--bar); }
svg .rest { fill: var(--mark); }
svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .grid { stroke: var(--line); stroke-width: 1; }
summary { cursor: pointer; margin: .6rem 0; }
"""

_LARGEST, _LEAST = 1e100, 1e-100  # magnitudes that an axis can show
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


class Html(str):
    """Markup. Everything that is not of this class is text and gets escaped."""


def element(name: str, /, *children: object, **attributes: object) -> Html:
    """`<name attributes>children</name>`, text and values escaped.

    In an attribute's name `class_` stands for class, `_` for `-`; one that is None is left out.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            words.append(f'{key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"')
    inside = join(children)
    return Html(f"<{' '.join(words)}>" + ("" if name in _VOID else f"{inside}</{name}>"))


def join(children: Iterable[object]) -> Html:
    """The children one after another, text escaped."""
    return Html("".join(child if isinstance(child, Html) else html.escape(str(child)) for child in children))


def page(title: str, *children: object, style: str = "", script: str = "") -> str:
    """A whole document.

    Args:
        style: rules after the page's own.
        script: the one script that runs, when all of the page is there; the policy names it by its hash.
    """
    policy, scripts = _POLICY, []
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy += f"; script-src 'sha256-{digest}'"
        scripts.append(element("script", Html(script)))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(_STYLE + style)),
    )
    body = element("body", element("main", *children), *scripts)
    return "<!DOCTYPE html>\n" + element("html", head, body, lang="en") + "\n"


def contents(sections: Sequence[tuple[str, str]]) -> Html:
    """Links to `sections`, pairs of an element's id and its heading."""
    links = [element("li", element("a", name, href=f"#{anchor}")) for anchor, name in sections]
    return element("nav", element("ul", *links), aria_label="Contents")


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table whose first column names its row. Numbers stand right."""
    rows = list(rows)
    numeric = {place for row in rows for place, value in enumerate(row) if place and _is_number(value)}
    head = [
        element("th", heading, scope="col", class_="number" if place in numeric else None)
        for place, heading in enumerate(headings)
    ]
    body = [element("tr", *(_cell(value, place) for place, value in enumerate(row))) for row in rows]
    whole = element("table", element("thead", element("tr", *head)), element("tbody", *body))
    return element("div", whole, class_="scroll")


def _cell(value: object, place: int) -> Html:
    text = show_number(value) if _is_number(value) else value
    if place == 0:
        return element("th", text, scope="row")
    return element("td", text, class_="number" if _is_number(value) else None)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def picture(data: bytes, alt: str, class_: str | None = None) -> Html:
    """A JPEG as part of the page."""
    source = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    return element("img", src=source, alt=alt, class_=class_)


def show_number(value: float) -> str:
    """Whole numbers with thousands separators, others with three significant digits."""
    if isinstance(value, int) or (math.isfinite(value) and value == int(value) and abs(value) < 1e15):
        return f"{int(value):,}"
    if abs(value) >= 1000 and math.isfinite(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def histogram(
    values: Sequence[float] | np.ndarray, title: str, unit: str, counted: str = "clips", bins: int = 30
) -> Html:
    """How `values` are distributed: an SVG with axes, and its numbers in words below.

    A long tail would squeeze the rest into one bar: values far above the 99th percentile are counted in the
    last bar, which is then marked and explained. Values that no axis can show are left out and counted.
    """
    everything = np.asarray(values, dtype=float).reshape(-1)
    known = everything[np.abs(everything) < _LARGEST]
    if not known.size:
        return element("figure", element("h3", title), element("p", "no values", class_="soft"))
    low, high, tail = _range(known)
    ticks = _ticks(low, high, 6)
    counts, edges = np.histogram(np.minimum(known, high), bins, (low, high))
    words = (
        f"{known.size:,} {counted}: median {show_number(float(np.median(known)))}, "
        f"from {show_number(float(known.min()))} to {show_number(float(known.max()))}"
    )
    if tail:
        words += f"; the last bar also holds {tail:,} above {show_number(high)}"
    if known.size < everything.size:
        words += f"; {everything.size - known.size:,} not known"
    figure = _bars(counts, edges, ticks, (f"{title}, {unit}" if unit else title, counted), bool(tail))
    label = f"Histogram of {title.lower()}. {words}."
    svg = element("svg", figure, viewBox="0 0 420 214", role="img", aria_label=label)
    return element("figure", element("h3", title), svg, element("figcaption", words))


def _range(known: np.ndarray) -> tuple[float, float, int]:
    """Lower end, upper end, and how many values lie above it."""
    low, high = float(known.min()), float(known.max())
    usual = float(np.percentile(known, 99))
    if low >= 0 and low < 0.5 * usual:
        low = 0.0  # bars that begin at zero are easier to compare
    if high > 2 * usual - low and usual > low:
        high = usual
    size = max(abs(low), abs(high))
    if high - low <= max(size * 1e-9, _LEAST):  # one value, as far as an axis can tell
        margin = size * 0.1 if size > _LEAST else 0.5
        return low - margin, high + margin, 0
    return low, high, int((known > high).sum())


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers within [low, high], at most about `most`."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= most)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _bars(
    counts: np.ndarray, edges: np.ndarray, ticks: Sequence[float], labels: tuple[str, str], marked: bool
) -> Html:
    left, right, top, bottom = 52.0, 412.0, 24.0, 172.0
    low, high, most = float(edges[0]), float(edges[-1]), max(1, int(counts.max()))

    def x(value: float) -> float:
        return round(left + (value - low) / (high - low) * (right - left), 2)

    def y(count: float) -> float:
        return round(bottom - count / most * (bottom - top), 2)

    parts = []
    for count in sorted({int(tick) for tick in _ticks(0, most, 5)}):
        parts.append(element("line", class_="grid", x1=left, x2=right, y1=y(count), y2=y(count)))
        parts.append(element("text", f"{count:,}", x=left - 6, y=y(count) + 4, text_anchor="end"))
    for number, count in enumerate(map(int, counts)):
        if count:
            begin, end = float(edges[number]), float(edges[number + 1])
            rest = marked and number == len(counts) - 1
            said = f"{show_number(begin)} to {'more' if rest else show_number(end)}: {count:,}"
            width = round(max(0.5, x(end) - x(begin) - 1), 2)
            # A lone value among thousands must still be seen.
            height = round(max(1.0, bottom - y(count)), 2)
            parts.append(
                element(
                    "rect",
                    element("title", said),
                    class_="rest" if rest else "bar",
                    x=x(begin),
                    y=round(bottom - height, 2),
                    width=width,
                    height=height,
                )
            )
    parts.append(element("line", class_="axis", x1=left, x2=right, y1=bottom, y2=bottom))
    for tick in ticks:
        parts.append(element("line", class_="axis", x1=x(tick), x2=x(tick), y1=bottom, y2=bottom + 4))
        parts.append(element("text", f"{tick:.10g}", x=x(tick), y=bottom + 17, text_anchor="middle"))
    parts.append(element("text", labels[0], x=(left + right) / 2, y=bottom + 36, text_anchor="middle"))
    parts.append(element("text", labels[1], x=left - 6, y=top - 12, text_anchor="end"))
    return join(parts)
