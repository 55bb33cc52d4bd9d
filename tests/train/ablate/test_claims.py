"""Claims are judged by the interval of paired differences, over seeds and scenes."""

from __future__ import annotations

import numpy as np
import pytest

from live2diff.eval import bootstrap
from train.ablate.claims import judge
from train.ablate.intervals import interval
from train.ablate.rows import TABLES, Claim

RNG = np.random.default_rng(0)
SCENES = 20 * RNG.random((1, 12))  # how hard scenes are: far more than rows differ
NOISE = 0.1 * RNG.standard_normal((3, 12))


def verdicts(figure: str, pairs: tuple[tuple[str, str], ...], **rows: np.ndarray) -> tuple[str, list[str]]:
    (found,) = judge([Claim("", figure, pairs)], {label: {figure: values} for label, values in rows.items()})
    return found.verdict, [difference.verdict for difference in found.differences]


def test_every_verdict_where_rows_differ_by_less_than_scenes_do() -> None:
    lower, same, higher = SCENES - 1 + NOISE, SCENES + NOISE - NOISE.mean(), SCENES + 1 + NOISE
    base = SCENES + 0 * NOISE
    assert interval(lower)[1] > interval(base)[0]  # type: ignore[index] - apart, their intervals say nothing
    rows = {"a": lower, "b": same, "c": higher, "z": base}
    for label, verdict in (("a", "holds"), ("b", "undecided"), ("c", "does not hold")):
        assert verdicts("warp_error", ((label, "z"),), **rows) == (verdict, [verdict])
    # A higher value is better for some.
    assert verdicts("psnr", (("a", "z"),), **rows)[0] == "does not hold"
    assert verdicts("psnr", (("c", "z"),), **rows)[0] == "holds"


def test_a_claim_holds_where_all_of_it_does() -> None:
    rows = {"a": SCENES - 1 + NOISE, "b": SCENES - 1 + NOISE[::-1], "z": SCENES + 0 * NOISE}
    assert verdicts("warp_error", (("a", "z"), ("b", "z")), **rows)[0] == "holds"
    assert verdicts("warp_error", (("a", "z"), ("a", "b")), **rows) == ("undecided", ["holds", "undecided"])
    assert verdicts("warp_error", (("a", "z"), ("a", "b"), ("z", "a")), **rows)[0] == "does not hold"


def test_a_row_that_only_one_seed_in_three_makes_better_is_undecided() -> None:
    """Scenes alone would be sure of it: seeds are drawn anew, too."""
    lucky = np.array([[-3.0], [0.5], [0.5]]) + NOISE
    assert bootstrap.interval(list(lucky.mean(0)))[1] < 0  # type: ignore[index]
    assert verdicts("warp_error", (("a", "z"),), a=SCENES + lucky, z=SCENES + 0 * NOISE)[0] == "undecided"


def test_of_one_seed_it_is_the_interval_over_scenes() -> None:
    values = RNG.random((1, 24))
    ours, theirs = interval(values), bootstrap.interval(list(values[0]))
    assert ours == pytest.approx(theirs, abs=0.005)


def test_too_few_scenes_or_missing_values_decide_nothing() -> None:
    assert interval(np.ones((3, 4))) is None
    assert interval(np.full((3, 12), np.nan)) is None
    assert verdicts("psnr", (("a", "z"),), a=np.ones((3, 4)), z=np.zeros((3, 4)))[0] == "undecided"


@pytest.mark.parametrize("name", TABLES)
def test_claims_are_about_rows_of_their_table(name: str) -> None:
    labels = {row.label for row in TABLES[name].rows}
    for claim in TABLES[name].claims:
        assert {label for pair in claim.pairs for label in pair} <= labels
