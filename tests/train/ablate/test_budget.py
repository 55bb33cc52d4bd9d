"""Minutes become the same number of updates for every row, and stay it."""

from __future__ import annotations

import pytest

from live2diff.errors import UsageError
from train.ablate.budget import updates_for
from train.ablate.folder import Budget, Folder, Updates
from train.ablate.rows import TABLES
from train.ablate.run import _trained_for
from train.ablate.settings import AblateSettings

TABLE2, TABLE4 = (TABLES[name].trainings for name in ("table2", "table4"))


def test_a_budget_is_what_all_rows_and_seeds_take_together() -> None:
    # For one update of stage 1: A 0.5 s, C 0.5 s, C+ 2 x 0.5 s, D 2 x 1 s; with two seeds 8 s.
    assert updates_for(Budget(60, 2), TABLE2, (0.5, 1.0)) == 3600 // 8
    assert updates_for(Budget(60, 3), TABLE4, (0.5,)) == 3600 // 3
    # No more than the time, and as many as fit.
    assert updates_for(Budget(2, 1), TABLE4, (7.0,)) == 8


def test_too_short_a_budget_says_the_least() -> None:
    with pytest.raises(UsageError, match=r"--budget 0.1: too short .* the least here is 0.13 minutes"):
        updates_for(Budget(0.1, 2), TABLE2, (0.5, 1.0))


def begun(tmp_path, updates: Updates | None) -> Folder:
    Folder(tmp_path / "out", AblateSettings.of([])).begin(updates)
    (tmp_path / "out/data").mkdir()
    return Folder(tmp_path / "out", AblateSettings.of([]))


def test_the_same_budget_again_keeps_the_updates_it_gave(tmp_path) -> None:
    hour = Budget(60.0, 3)
    chosen = Updates(40, 80, hour, (0.5, 0.7))
    folder = begun(tmp_path, chosen)
    assert folder.updates == chosen
    out = tmp_path / "out"
    # Of another table and more seeds, too; and if nothing is asked for.
    for budget in (hour, Budget(60.0, 5)):
        assert _trained_for(out, folder, AblateSettings.of([]), budget, False) == chosen
    assert _trained_for(out, folder, AblateSettings.of(["updates=40"]), None, True) == chosen
    assert _trained_for(out, folder, AblateSettings.of([]), None, False) == chosen
    for words, budget in (
        (["updates=150"], None),
        (["updates=40", "stage2_updates=60"], None),
        ([], Budget(30.0, 3)),
    ):
        with pytest.raises(UsageError, match="trained with --updates 40 --stage2-updates 80"):
            _trained_for(out, folder, AblateSettings.of(words), budget, bool(words))


def test_a_folder_without_rows_takes_any_updates(tmp_path) -> None:
    folder, out = begun(tmp_path, None), tmp_path / "out"
    assert _trained_for(out, folder, AblateSettings.of(["updates=5"]), None, True) == Updates(5, 10)
    assert _trained_for(out, folder, AblateSettings.of([]), Budget(1.0, 3), False) is None
