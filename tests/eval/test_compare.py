"""Comparison of two results: paired intervals, refusals, conditions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from live2diff.cli import main
from live2diff.errors import UsageError
from live2diff.eval.bootstrap import interval
from live2diff.eval.compare import Condition, compare, left_out
from live2diff.eval.results import Figure, Results, VideoResult, write


def results(values: dict[str, float], figure: str = "warp_error", **signature: str | int) -> Results:
    made = Figure(
        {"flow": "dis", **signature}, float(np.mean([*values.values()])), None, None, "", "lower", 1
    )
    videos = [
        VideoResult(name, "s", "9f", "p", 2, 24.0, None, {figure: value}, {})
        for name, value in values.items()
    ]
    return Results("s", "p", {figure: made}, videos)


def hard_and_easy(change: float, seed: int = 0) -> dict[str, float]:
    """Videos that differ far more among each other than by the change."""
    generator = np.random.default_rng(seed)
    hardness = 10 ** np.random.default_rng(9).uniform(-3, 0, 30)
    return {f"v{i}": float(h + change + 1e-4 * generator.normal()) for i, h in enumerate(hardness)}


def test_the_bootstrap_interval_is_the_textbook_s():
    """Of a mean of many it is nearly normal; the same every time; none of one value."""
    data = list(np.random.default_rng(0).normal(3, 2, 400))
    low, high = interval(data) or (0, 0)
    assert low == pytest.approx(np.mean(data) - 1.96 * np.std(data) / 20, abs=0.01)
    assert high == pytest.approx(np.mean(data) + 1.96 * np.std(data) / 20, abs=0.01)
    assert interval(data) == (low, high)
    assert interval([1.0]) is None and interval([]) is None
    assert interval([2.0, 2.0]) == (2.0, 2.0)


def test_pairs_show_what_means_do_not():
    a, b = hard_and_easy(0), hard_and_easy(0.001, seed=1)
    (change,) = compare(results(a), results(b))
    assert change.verdict == "worse" and change.low > 0.0009 and change.high < 0.0011
    apart = interval(list(b.values())) or (0, 0)
    assert apart[1] - apart[0] > 50 * (change.high - change.low)
    assert compare(results(b), results(a))[0].verdict == "better"
    assert compare(results(a), results(hard_and_easy(0, 2)))[0].verdict == "no clear difference"
    assert change.difference == pytest.approx(np.mean([b[name] - a[name] for name in a]))


def test_only_videos_that_both_have():
    a, b = results({"x": 1.0, "y": 2.0, "z": 50.0}), results({"y": 2.5, "x": 1.5, "w": 0.0})
    (change,) = compare(a, b)
    assert left_out(a, b) == (["z"], ["w"])
    assert (change.before, change.after, change.videos) == (1.5, 2.0, 2)
    assert change.percent == pytest.approx(100 / 3)
    with pytest.raises(UsageError, match="no video in common"):
        compare(results({"x": 1}), results({"y": 1}))


def test_other_sources_of_the_same_name_are_refused():
    a, b = results({"x": 1.0, "y": 2.0}), results({"x": 1.5, "y": 2.5})
    b.videos[1] = replace(b.videos[1], source_hash="another")
    with pytest.raises(UsageError, match="^y: A and B were measured against different source frames"):
        compare(a, b)
    (change,) = compare(a, b, allow_unequal=True)
    assert (change.videos, change.unequal) == (2, ("source",))


def test_higher_may_be_better():
    a, b = results({"x": 1.0, "y": 2.0}), results({"x": 1.5, "y": 2.6})
    for each in (a, b):
        each.figures["warp_error"] = replace(each.figures["warp_error"], better="higher")
    assert compare(a, b)[0].verdict == "better"


def test_one_video_is_no_evidence():
    (change,) = compare(results({"x": 1}), results({"x": 2}))
    assert (change.low, change.verdict) == (None, "not known")


def test_unequal_signatures_are_refused_by_key():
    a, b = results({"x": 1, "y": 2}, mask="none"), results({"x": 1, "y": 2}, flow="raft", size=3)
    with pytest.raises(UsageError) as error:
        compare(a, b)
    said = str(error.value)
    for words in ("flow is dis and raft", "mask is none and absent", "size is absent and 3"):
        assert words in said
    (change,) = compare(a, b, allow_unequal=True)
    assert change.unequal == ("flow", "mask", "size")


@pytest.mark.parametrize(
    ("text", "before", "after", "holds"),
    [
        ("warp_error>+5%", 1.0, 1.06, True),
        ("warp_error>+5%", 1.0, 1.04, False),
        ("warp_error > +5 %", 1.0, 1.06, True),
        ("warp_error<-5%", 1.0, 0.94, True),
        ("warp_error>+0.5", 10.0, 10.6, True),
        ("warp_error>+0.5", 10.0, 10.4, False),
        ("warp_error>+5%", -1.0, -0.9, True),
        ("warp_error>+5%", 0.0, 0.0, False),
    ],
)
def test_conditions(text, before, after, holds):
    changes = compare(results({"x": before}), results({"x": after}))
    assert Condition.parse(text).holds(changes) is holds


@pytest.mark.parametrize("text", ["warp_error", "warp_error>5", "warp_error=>+5%", ">+5%", "a>+%", ""])
def test_conditions_that_are_none(text):
    with pytest.raises(UsageError, match="write FIGURE>"):
        Condition.parse(text)


def test_conditions_on_what_is_not_there():
    changes = compare(results({"x": 1}), results({"x": 2}))
    with pytest.raises(UsageError, match="both results must have flicker; they have warp_error"):
        Condition.parse("flicker>+5%").holds(changes)
    with pytest.raises(UsageError, match="was 0, leave out the %"):
        Condition.parse("warp_error>+5%").holds(compare(results({"x": 0}), results({"x": 2})))


def test_the_command(tmp_path, capsys):
    for name, values in (("a", {"x": 1.0, "y": 2.0}), ("b", {"x": 1.1, "y": 2.3})):
        write(results(values), tmp_path / name / "results.json")
    write(results({"x": 1.0}, flow="raft"), tmp_path / "c/results.json")
    write(results({"x": 1.0}), tmp_path / "d/results.json")
    words = ["eval", "compare", str(tmp_path / "a"), str(tmp_path / "b/results.json")]
    assert main(words) == 0
    said = capsys.readouterr().out
    for word in ("warp_error", "+13.3 %", "+0.1 to +0.3", "worse over 2 videos"):
        assert word in said
    assert main([*words, "--fail-if", "warp_error>+20%"]) == 0
    assert main([*words, "--fail-if", "warp_error>+5%"]) == 6
    assert "failed: warp_error>+5%" in capsys.readouterr().err
    assert main(["eval", "compare", str(tmp_path / "a"), str(tmp_path / "d")]) == 0
    assert "warning: only in A, left out: y" in capsys.readouterr().err
    assert main(["eval", "compare", str(tmp_path / "a"), str(tmp_path / "c")]) == 2
    assert "flow is dis and raft; --allow-unequal" in capsys.readouterr().err
    assert main(["eval", "compare", str(tmp_path / "a"), str(tmp_path / "c"), "--allow-unequal"]) == 0
    assert "unequal: flow" in capsys.readouterr().out
