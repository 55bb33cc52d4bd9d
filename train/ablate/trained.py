"""Tables 2 and 4: rows that are trained, streamed over held-out scenes, and measured."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import Any

import numpy as np

from live2diff.runs import checkpoints, updates_of
from train.ablate.claims import Values, judge
from train.ablate.data import toy_model
from train.ablate.evaluate import measure_row, read_made_on, read_row
from train.ablate.folder import Folder, Updates
from train.ablate.intervals import interval
from train.ablate.measure import Measure
from train.ablate.rows import Row, Table, Training
from train.ablate.scenes import held_out
from train.ablate.settings import AblateSettings
from train.ablate.show import Shown, cells, headings, words_of
from train.run import train


class StoppedError(Exception):
    """A signal ended a training; `code` is the exit code it asks for."""

    def __init__(self, code: int):
        super().__init__(code)
        self.code = code


def trained_table(
    folder: Folder, table: Table, settings: AblateSettings, updates: Updates
) -> tuple[Shown, dict[str, Any]]:
    """Train and measure what is not yet; returns the table, and its values for results.json.

    Raises:
        StoppedError: by a signal; what is finished stays.
    """
    for seed in range(settings.seeds):
        for place, training in enumerate(table.trainings, 1):
            if not _is_trained(folder, training, seed, updates):
                where = f"{place + seed * len(table.trainings)} of {settings.seeds * len(table.trainings)}"
                count = _count(training, updates)
                print(f"training {training.name}, seed {seed} ({where}): {count} updates", flush=True)
                _train(folder, training, seed, updates)
    _measure(folder, table, settings)
    rows = {row.label: _read(folder, row, settings) for row in table.rows}
    findings = judge(table.claims, rows)
    shown = Shown(
        table.title,
        _made(table, settings, updates),
        headings(),
        [cells(row, rows[row.label]) for row in table.rows],
        [words_of(finding, {row.label: row for row in table.rows}) for finding in findings],
    )
    paths = [folder.measured(row.key, seed) for row in table.rows for seed in _seeds(row, settings)]
    return shown, {
        "made_on": list(dict.fromkeys(map(read_made_on, paths))),
        "rows": [{**asdict(row), "figures": _figures(rows[row.label])} for row in table.rows],
        "findings": [{**asdict(finding), "verdict": finding.verdict} for finding in findings],
    }


def _count(training: Training, updates: Updates) -> int:
    return updates.stage2 if training.base else updates.stage1


def _is_trained(folder: Folder, training: Training, seed: int, updates: Updates) -> bool:
    found = checkpoints(folder.run(training.name, seed))
    return bool(found) and updates_of(found[-1]) >= _count(training, updates)


def _train(folder: Folder, training: Training, seed: int, updates: Updates) -> None:
    run = folder.run(training.name, seed)
    base = None if training.base is None else folder.run(training.base, seed)
    words = training.overrides(run, base, folder.dataset, _count(training, updates), seed)
    with redirect_stdout(io.StringIO()):  # what to do next with a run, which is not for the user here
        code = train(words)
    if not _is_trained(folder, training, seed, updates):
        raise StoppedError(code)


def _seeds(row: Row, settings: AblateSettings) -> range:
    """The truth has one: it is not trained."""
    return range(1 if row.training is None else settings.seeds)


def _measure(folder: Folder, table: Table, settings: AblateSettings) -> None:
    missing = [
        (row, seed)
        for row in table.rows
        for seed in _seeds(row, settings)
        if not folder.measured(row.key, seed).exists()
    ]
    if not missing:
        return
    # By the nets that come with the package, the same for all rows.
    measure, scenes = Measure(toy_model()), list(held_out(settings.scenes, settings.frames))
    for row, seed in missing:
        measure_row(folder, row, seed, scenes, measure, settings.steps)


def _read(folder: Folder, row: Row, settings: AblateSettings) -> Values:
    """By figure, (seeds, scenes)."""
    found = [read_row(folder.measured(row.key, seed)) for seed in _seeds(row, settings)]
    return {name: np.stack([values[name] for values in found]) for name in found[0]}


def _figures(values: Values) -> dict[str, Any]:
    """Means with their intervals, and every value by seed and scene."""
    figures = {}
    for name, array in values.items():
        low, high = interval(array) or (None, None)
        figures[name] = {"mean": None, "low": low, "high": high, "values": None}
        if np.isfinite(array).all():
            figures[name] |= {"mean": float(array.mean()), "values": array.tolist()}
    return figures


def _made(table: Table, settings: AblateSettings, updates: Updates) -> list[str]:
    steps = ",".join(map(str, settings.steps))
    count, by = f"{updates.stage1} in stage 1", ""
    if any(training.base for training in table.trainings):
        count += f", {updates.stage2} in stage 2"
    if updates.budget is not None:
        plain, *deep = (f"{seconds:.2f} s" for seconds in updates.seconds)
        by = f", which --budget {updates.budget.minutes:g} gave at {plain} for an update"
        by += f", {deep[0]} with depth" if deep else ""
    scenes, seeds = _many(settings.scenes, "scene"), _many(settings.seeds, "seed")
    over = f"over {seeds} and {scenes}"
    if settings.seeds == 1:
        over = f"over {scenes}; with one seed they say nothing of another training"
    return [
        f"Toy world: {scenes}, held out, of {settings.frames} frames, photo to cartoon, steps {steps}; every "
        f"row trained with {seeds}.",
        f"Updates: {count}{by}.",
        f"In brackets, 95 % intervals {over}.",
    ]


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'s'[: count != 1]}"
