"""Rows are those of the paper, and start from modules that have never streamed."""

from __future__ import annotations

from pathlib import Path

import pytest

from live2diff.config import compose
from train.ablate.rows import TABLES, TRAININGS


def composed(name: str, run: str = "run", base: str = "base"):
    training = TRAININGS[name]
    words = training.overrides(Path(run), Path(base) if training.base else None, Path("data"), 7, 3)
    return compose("train", words)


@pytest.mark.parametrize(
    ("name", "real"),
    [("A", "ablation_a"), ("C", "ablation_c"), ("D", "ablation_d"), ("Lw4", "warmup4")],
)
def test_a_row_is_its_real_size_one_in_the_toy_world(name: str, real: str) -> None:
    ours, theirs = composed(name), compose("train", [f"experiment={real}", "data.path=data"])
    assert (ours.trainer.mask, ours.trainer.depth) == (theirs.trainer.mask, theirs.trainer.depth)
    assert ours.model.settings.get("warmup") == theirs.model.settings.get("warmup")
    assert (ours.trainer.updates, ours.seed, ours.validation.every) == (7, 3, None)
    assert TRAININGS[name].depth == ours.trainer.depth


def test_b_is_c_streamed_another_way() -> None:
    rows = {row.label: row for row in TABLES["table2"].rows}
    assert rows["B"].training == rows["C"].training == "C"
    assert (rows["B"].mask, rows["C"].mask) == ("causal", None)


def test_longer_training_differs_from_d_in_depth_alone() -> None:
    longer, deep = composed("C+").trainer, composed("D").trainer
    assert (longer.depth, deep.depth) == (False, True)
    assert (list(longer.trainable), list(deep.trainable)) == (["motion"], ["motion", "depth"])
    same = {key: value for key, value in longer.items() if key not in ("depth", "trainable")}
    assert same == {key: deep[key] for key in same}


@pytest.mark.parametrize("name", [name for name, training in TRAININGS.items() if training.base is None])
def test_first_stages_start_from_modules_whose_frames_all_see_each_other(name: str) -> None:
    assert composed(name).model.unet.motion == "toy:motion.safetensors"


def test_tables_train_what_they_need_once_and_bases_first() -> None:
    names = {name: [training.name for training in table.trainings] for name, table in TABLES.items()}
    assert names == {"table2": ["A", "C", "C+", "D"], "table4": ["Lw4", "C"]}


@pytest.mark.parametrize("folder", ["my runs/a=b, [1]", 'the "best" one', "läufe/'x'", "C+-0"])
def test_any_folder_will_do(folder: str) -> None:
    config = composed("D", run=folder, base=f"{folder}/base")
    assert (config.run_dir, config.model.saved) == (folder, f"{folder}/base")
