"""Every figure with its interval, beside the paper's, and why the two cannot be compared."""

from __future__ import annotations

from live2diff.eval.paper import FIGURES, differences
from live2diff.eval.report.words import NONE, interval, title_of, why_not, with_unit
from live2diff.eval.results import Figure, Results, signature_text
from live2diff.html import Html, element

# Heading and style of each column.
_COLUMNS = (
    ("figure", None),
    ("this run", "number ours"),
    ("95 % interval", None),
    ("videos", "number"),
    ("paper", "number"),
    ("beside the paper", None),
)


def comparison(name: str, figure: Figure) -> tuple[str, str, str]:
    """The paper's number, "comparable" or not, and the reasons, as text."""
    paper = FIGURES.get(name)
    if paper is None:
        return NONE, "", "not in the paper"
    reasons = why_not(differences(figure, paper))
    return f"{paper.value:g}", "not comparable" if reasons else "comparable", reasons


def summary(results: Results) -> list[Html]:
    """The table of figures and, below it, their signatures."""
    if not results.figures:
        return [element("p", "Nothing was measured.")]
    head = [element("th", text, scope="col", class_=style) for text, style in _COLUMNS]
    rows = [_row(name, figure) for name, figure in results.figures.items()]
    table = element(
        "table", element("thead", element("tr", *head)), element("tbody", *rows), class_="summary"
    )
    return [element("div", table, class_="scroll"), _signatures(results)]


def _row(name: str, figure: Figure) -> Html:
    paper, verdict, reasons = comparison(name, figure)
    beside = [element("b", verdict, class_=None if verdict == "comparable" else "unlike")] if verdict else []
    beside.append(element("span", (": " if verdict and reasons else "") + reasons, class_="soft"))
    cells = [
        [element("b", with_unit(figure))],
        [interval(figure)],
        [figure.videos or NONE],
        [paper],
        beside,
    ]
    title = element(
        "th", title_of(name), element("span", f"{figure.better} is better", class_="soft"), scope="row"
    )
    # On a narrow page every cell stands on a line of its own, with its name before it.
    named = zip(_COLUMNS[1:], cells, strict=True)
    return element(
        "tr", title, *(element("td", *cell, class_=style, data_name=name) for (name, style), cell in named)
    )


def _signatures(results: Results) -> Html:
    """What every number depends on, key by key, beside what is known of the paper's."""
    parts = []
    for name, figure in results.figures.items():
        paper = FIGURES.get(name)
        known = paper.known if paper else {}
        keys = sorted({*figure.signature, *known})
        rows = [
            element(
                "tr",
                element("th", key, scope="row"),
                element("td", figure.signature.get(key, NONE)),
                element("td", known.get(key, "not known")) if paper else "",
            )
            for key in keys
        ]
        head = [
            element("th", text, scope="col") for text in ("key", "this run", "paper")[: 3 if paper else 2]
        ]
        table = element("table", element("thead", element("tr", *head)), element("tbody", *rows))
        parts += [
            element("h3", title_of(name)),
            element("div", table, class_="scroll"),
            element("p", element("code", signature_text(figure.signature))),
        ]
        if paper:
            parts.append(element("p", f"The paper's {paper.value:g}: {paper.setting}.", class_="soft"))
    return element("details", element("summary", "Signatures: what every number depends on"), *parts)
