"""How the report says things: numbers, names of figures, reasons."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from live2diff.eval.paper import Difference
from live2diff.eval.results import Figure

NONE = "–"  # what is not known
_ACRONYMS = frozenset(("clip", "mse", "psnr", "fps"))


def show(value: float | None) -> str:
    """Four significant digits; a dash for what is no finite number."""
    if value is None or not math.isfinite(value):
        return NONE
    if abs(value) < 1e6 and value == int(value):
        return str(int(value))
    return f"{value:#.4g}".rstrip(".")


def name_of(figure: str) -> str:
    """`depth_mse_aligned` as "depth MSE aligned"."""
    return " ".join(word.upper() if word in _ACRONYMS else word for word in figure.split("_"))


def title_of(figure: str) -> str:
    """The same with a capital letter first."""
    name = name_of(figure)
    return name[:1].upper() + name[1:]


def with_unit(figure: Figure) -> str:
    """The mean and its unit."""
    mean = show(figure.mean)
    return f"{mean} {figure.unit}" if figure.unit and mean != NONE else mean


def interval(figure: Figure) -> str:
    """The 95 % interval of a mean, or a dash."""
    low, high = show(figure.low), show(figure.high)
    return NONE if NONE in (low, high) else f"{low} to {high}"


def why_not(differences: Sequence[Difference]) -> str:
    """Reasons not to compare a figure with the paper's; nothing if there are none."""
    other = [
        f"{d.key} {'not stated' if d.ours is None else d.ours} against {d.paper}"
        for d in differences
        if d.paper is not None
    ]
    unknown = [d.key for d in differences if d.paper is None]
    parts = [f"differs: {', '.join(other)}"] if other else []
    parts += [f"not known of the paper: {', '.join(unknown)}"] if unknown else []
    return "; ".join(parts)


def _leaf(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or NONE
    return NONE if value in (None, "") else str(value)


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested tables under dotted names, as text."""
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}.")
        else:
            yield name, _leaf(value)
