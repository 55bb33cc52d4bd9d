"""One of the paper's tables in the toy world, from training to the table. Running it again continues it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from live2diff import __version__
from live2diff.errors import UsageError
from live2diff.files import staged_file, write_json
from live2diff.machine import describe
from live2diff.terminal import quiet_libraries
from train.ablate.budget import choose_updates
from train.ablate.data import Build, make_data
from train.ablate.folder import Budget, Folder, Updates
from train.ablate.picture import save_rows
from train.ablate.rows import TABLES
from train.ablate.scenes import held_out
from train.ablate.settings import AblateSettings
from train.ablate.show import Shown
from train.ablate.table3 import cache_table, check_frames
from train.ablate.trained import StoppedError, trained_table


def ablate(
    name: str,
    out: Path,
    words: Sequence[str],
    *,
    budget: float | None = None,
    overwrite: bool = False,
    build_dataset: Build,
) -> int:
    """Train, measure, print, and write OUT/NAME/results.json and table.md.

    Args:
        name: table2, table3 or table4.
        words: `key=value` settings, see conf/ablate.
        budget: minutes of training by which the updates are chosen; None: the settings say them.
        overwrite: replace what `out` holds of another ablation.

    Returns:
        The exit code: 0, or what a signal ended a training with.

    Raises:
        Live2DiffError: settings that cannot be, or that do not agree with what `out` was begun with.
    """
    quiet_libraries()
    settings = AblateSettings.of(words)
    folder = Folder(out.absolute(), settings, overwrite)
    asked = None if budget is None else Budget(budget, settings.seeds)
    try:
        if name == "table3":
            check_frames(settings)
            folder.begin(folder.updates)
            shown, results = cache_table(folder, settings)
        else:
            given = any(word.startswith(("updates=", "stage2_updates=")) for word in words)
            updates = _trained_for(out, folder, settings, asked, given)
            folder.begin(updates)
            make_data(folder, settings, build_dataset)
            if updates is None:
                assert asked is not None
                updates = choose_updates(asked, TABLES[name].trainings, folder.dataset)
                folder.begin(updates)
            print(f"updates: {updates.stage1} in stage 1, {updates.stage2} in stage 2", flush=True)
            shown, results = trained_table(folder, TABLES[name], settings, updates)
            kept = {f"{row.label}: {row.about}": folder.strip(row.key, 0) for row in TABLES[name].rows}
            (scene,) = held_out(1, settings.frames)
            save_rows(folder.path / name / "rows.png", scene.source, kept)
    except StoppedError as stop:
        print(f"stopped; run the same command again to go on, in {out}")
        return stop.code
    command = _command(name, out, folder, settings, words)
    _write(folder.path / name, folder, settings, command, shown, results)
    print()
    shown.print()
    pictures = "" if name == "table3" else "; rows.png: look at it"
    print(f"\n{out / name}: table.md, and results.json with every value{pictures}")
    print(f"the same again: {command}")
    print(f"next: {_command(_NEXT[name], out, folder, settings, words)}")
    return 0


_NEXT = {"table2": "table4", "table4": "table3", "table3": "table2"}


def _command(name: str, out: Path, folder: Folder, settings: AblateSettings, words: Sequence[str]) -> str:
    """What makes a table in this folder again, also where the updates were chosen by a budget."""
    as_options = ("updates=", "stage2_updates=", "seeds=")
    rest = [word for word in words if not word.startswith(as_options)]
    updates = folder.updates.words.split() if folder.updates else []
    seeds = ["--seeds", str(settings.seeds)]
    return shlex.join(["live2diff", "ablate", name, *updates, *seeds, "--out", str(out), *rest])


def _write(
    place: Path,
    folder: Folder,
    settings: AblateSettings,
    command: str,
    shown: Shown,
    results: dict[str, Any],
) -> None:
    write_json(
        place / "results.json",
        {
            "format": 1,
            "live2diff": __version__,
            "table": shown.title,
            "command": command,
            "settings": asdict(settings),
            "updates": folder.updates and asdict(folder.updates),
            **results,
            "toy_weights": folder.weights,
            "written_on": describe("torch", "diffusers", "numpy"),
        },
    )
    where = f"Measured with {' and '.join(results['made_on'])}; toy weights {folder.weights[:12]}."
    with staged_file(place / "table.md") as stage:
        stage.write_text(shown.markdown(where, command), encoding="utf-8")


def _trained_for(
    out: Path, folder: Folder, settings: AblateSettings, budget: Budget | None, given: bool
) -> Updates | None:
    """The updates that are asked for; None: they are still to be chosen by the budget.

    Args:
        given: the settings' updates were asked for; if not, those that the folder has come first.

    Raises:
        UsageError: the folder's rows are trained for other ones.
    """
    before = folder.updates
    if budget is None:
        asked = Updates(settings.updates, settings.stage2_updates)
        if before is None or not given or (before.stage1, before.stage2) == (asked.stage1, asked.stage2):
            return before or asked
        wanted = asked.words
    else:
        if before is None or (before.budget and before.budget.minutes == budget.minutes):
            return before
        wanted = f"--budget {budget.minutes:g}"
    raise UsageError(
        f"--out {out}: its rows are trained with {before.words}, not {wanted}; give the same, choose "
        "another folder, or replace it with --overwrite"
    )
