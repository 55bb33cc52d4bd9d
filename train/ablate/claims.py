"""Whether a claim of the paper holds here: by the interval of the difference, not by two separate ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from train.ablate.intervals import interval
from train.ablate.measure import KINDS
from train.ablate.rows import Claim

Verdict = Literal["holds", "does not hold", "undecided"]
Values = Mapping[str, np.ndarray]  # of a row: by figure, (seeds, scenes)


@dataclass(frozen=True)
class Difference:
    """Of two rows in one figure.

    Attributes:
        mean: of `better` minus `worse`, as the claim names them; `low` and `high` its 95 % interval, None
            of too few scenes.
    """

    better: str
    worse: str
    mean: float
    low: float | None
    high: float | None
    verdict: Verdict


@dataclass(frozen=True)
class Finding:
    """What became of a claim: it holds where all its differences do, and does not where one does not."""

    claim: Claim
    differences: tuple[Difference, ...]

    @property
    def verdict(self) -> Verdict:
        verdicts = {difference.verdict for difference in self.differences}
        if verdicts == {"holds"}:
            return "holds"
        return "does not hold" if "does not hold" in verdicts else "undecided"


def judge(claims: Sequence[Claim], rows: Mapping[str, Values]) -> list[Finding]:
    """Every claim on the values of rows, by their labels."""
    return [
        Finding(claim, tuple(_difference(claim.figure, *pair, rows) for pair in claim.pairs))
        for claim in claims
    ]


def _difference(figure: str, better: str, worse: str, rows: Mapping[str, Values]) -> Difference:
    values = rows[better][figure] - rows[worse][figure]
    ends = interval(values)
    sign = 1 if KINDS[figure].better == "higher" else -1
    verdict: Verdict = "undecided"
    if ends is not None and min(sign * end for end in ends) > 0:
        verdict = "holds"
    elif ends is not None and max(sign * end for end in ends) < 0:
        verdict = "does not hold"
    low, high = ends or (None, None)
    return Difference(better, worse, float(values.mean()), low, high, verdict)
