"""`live2diff ablate` from data to table; stopped and run again; and wrong use."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from live2diff.cli import main
from train.ablate import budget, table3, trained
from train.ablate.folder import Folder, Updates
from train.ablate.measure import KINDS
from train.ablate.rows import TABLES
from train.ablate.settings import AblateSettings
from train.ablate.trained import StoppedError, trained_table

SMALL = ["clips=1", "seconds=2", "scenes=1", "frames=4"]
ONCE = ["--updates", "1", "--stage2-updates", "1", "--seeds", "1"]


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("ablate") / "out"
    assert main(["ablate", "table2", *ONCE, "--out", str(out), *SMALL]) == 0
    return out


def refuse(*_: object) -> None:
    raise AssertionError("this was done already")


def test_a_table_from_data_to_figures(done: Path) -> None:
    results = json.loads((done / "table2/results.json").read_text())
    labels = [row["label"] for row in results["rows"]]
    assert labels == ["A", "B", "C", "C+", "D", "truth"]
    rows = dict(zip(labels, results["rows"], strict=True))
    for row in results["rows"][:-1]:
        assert row["figures"].keys() == KINDS.keys()
        assert np.shape(row["figures"]["warp_error"]["values"]) == (1, 1)
    # All are different functions: an untrained depth branch adds nothing, one update of it does.
    errors = {label: row["figures"]["psnr"]["mean"] for label, row in rows.items()}
    assert len(set(errors.values())) == 6 and errors["truth"] is None
    assert {finding["verdict"] for finding in results["findings"]} == {"undecided"}  # of one scene
    assert results["updates"] == {"stage1": 1, "stage2": 1, "budget": None, "seconds": []}
    picture = cv2.imread(str(done / "table2/rows.png"))
    # Seven strips (the input's, too) of 4 frames of 64 pixels, three times as large, each under its name.
    assert picture.shape[1] == 4 * 64 * 3 and picture.shape[0] > 7 * 64 * 3 and picture.std() > 20
    text = (done / "table2/table.md").read_text()
    assert "| A | plain causal mask |" in text and " 0.0968 |" in text and results["command"] in text


def test_again_does_nothing_twice_and_says_the_same(done: Path, monkeypatch, capsys) -> None:
    before = (done / "table2/table.md").read_text()
    for name in ("train", "measure_row", "toy_model"):
        monkeypatch.setattr(trained, name, refuse)
    shutil.rmtree(done / "table2")
    assert main(["ablate", "table2", *ONCE, "--out", str(done), *SMALL]) == 0
    assert (done / "table2/table.md").read_text() == before
    said = capsys.readouterr().out
    assert "C, then with depth" in said and f"{done}/table2: table.md" in said
    assert f"next: live2diff ablate table4 --updates 1 --stage2-updates 1 --seeds 1 --out {done}" in said


def test_another_table_takes_the_rows_that_are_there(done: Path, monkeypatch, capsys) -> None:
    asked = []
    monkeypatch.setattr(trained, "train", lambda words: asked.append(words) or 143)
    assert main(["ablate", "table4", *ONCE, "--out", str(done), *SMALL]) == 143
    assert len(asked) == 1 and "model.settings.warmup=4" in asked[0]
    assert "run the same command again" in capsys.readouterr().out


def test_a_stopped_ablation_goes_on_where_it_was(tmp_path, monkeypatch) -> None:
    """Killed after every training and every measurement in turn, nothing is done twice."""
    settings = AblateSettings.of(["seeds=2", "updates=3", "stage2_updates=4", "scenes=6"])
    folder, log = Folder(tmp_path, settings), []
    alive = [0]

    def work(name: str) -> None:
        if not alive[0]:
            raise StoppedError(130)
        alive[0] -= 1
        log.append(name)

    def fake_train(words: list[str]) -> int:
        values = dict(word.split("=", 1) for word in words)
        run = Path(json.loads(values["run_dir"]))
        work(run.name)
        checkpoint = run / f"checkpoints/step-{int(values['trainer.updates']):06d}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "manifest.json").write_text('{"files": {}}')
        return 0

    def fake_measure(folder: Folder, row, seed: int, *_: object) -> None:
        work(f"measured {row.key}-{seed}")
        path = folder.measured(row.key, seed)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"values": {name: [1.0] * 6 for name in KINDS}}))

    monkeypatch.setattr(trained, "train", fake_train)
    monkeypatch.setattr(trained, "measure_row", fake_measure)
    monkeypatch.setattr(trained, "Measure", lambda _: None)
    monkeypatch.setattr(trained, "toy_model", lambda: None)
    monkeypatch.setattr(trained, "held_out", lambda *_: [])
    while True:
        alive[0] = 1
        try:
            shown, _ = trained_table(folder, TABLES["table2"], settings, Updates(3, 4))
            break
        except StoppedError:
            pass
    trainings = [f"{name}-{seed}" for seed in range(2) for name in ("A", "C", "C+", "D")]
    rows = [f"measured {name}-{seed}" for name in ("A", "B", "C", "C+", "D") for seed in range(2)]
    assert log == [*trainings, *rows, "measured truth-0"]
    # Equal rows: no claim is decided.
    assert all(text.endswith(": undecided") for text, _ in shown.findings)


@pytest.mark.parametrize("deep", [False, True])
def test_an_update_is_timed_on_the_data(done: Path, monkeypatch, deep: bool) -> None:
    monkeypatch.setattr(budget, "_STEPS", 1)
    assert (
        0
        < budget.step_seconds(budget.probe(deep).overrides(Path("none"), None, done / "data/shards", 1, 0))
        < 60
    )


def test_results_that_cannot_be_read_are_one_line(done: Path, capsys) -> None:
    path = done / "measured/B-0.json"
    before = path.read_text()
    path.write_text(before[: len(before) // 2])
    assert main(["ablate", "table2", *ONCE, "--out", str(done), *SMALL]) == 3
    assert f"error: {path}: cannot be read; remove it" in capsys.readouterr().err
    path.write_text(before)


@pytest.mark.parametrize(
    ("cache", "no_cache", "levels", "verdicts"),
    [
        (0.1, 0.5, 1, ["holds", "holds"]),
        (0.5, 0.1, 1, ["does not hold", "holds"]),
        (0.1, 0.1, 7, ["undecided", "does not hold"]),
    ],
)
def test_table3_needs_no_training(tmp_path, monkeypatch, cache, no_cache, levels, verdicts) -> None:
    class Model:
        settings = type("Settings", (), {"window": 16})

    wave = [0.01 * (-1) ** place for place in range(16)]
    found = {
        "cache_s": [cache + each for each in wave],
        "no_cache_s": [no_cache + each / 2 for each in wave],
        "before": {"largest": levels, "mean": 0.0},
        "after": {"largest": 9, "mean": 0.5},
    }
    monkeypatch.setattr(table3, "toy_model", lambda *_: Model)
    monkeypatch.setattr(table3, "compare_caches", lambda *_: found)
    words = ["ablate", "table3", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    text = (tmp_path / "out/table3/table.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert [line.split(": ")[-1] for line in lines] == verdicts
    assert "| 20.43 |" in text
    monkeypatch.setattr(table3, "compare_caches", refuse)
    assert main(words) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table3", "--budget", "5"], "table3 trains nothing"),
        (["table2", "--budget", "0"], "--budget 0: expected minutes, more than 0"),
        (["table2", "--budget", "nan"], "--budget nan: expected minutes"),
        (["table2", "--budget", "5", "--updates", "3"], "leave out --updates"),
        (["table2", "--budget", "5", "updates=3"], "leave out --updates"),
        (["table2", "--updates", "0"], "updates=0: expected a whole number, 1 or more"),
        (["table2", "--seeds", "-1"], "seeds=-1: expected a whole number, 1 or more"),
        (["table2", "seconds=1"], "seconds=1: expected a whole number, 2 or more: a training sample"),
        (["table2", "frames=2"], "frames=2: expected a whole number, 3 or more: flicker"),
        (["table2", "stage2_updates=2.5"], "stage2_updates=2.5: expected a whole number"),
        (["table2", "steps=30"], "steps=30: expected a list of indices, such as [25,37]"),
        (["table2", "steps=[40,30]"], "rising"),
        (["table2", "scene=3"], "unknown setting scene; did you mean scenes?"),
        (["table3", "frames=16"], "frames=16: Table 3 needs more than the window of 16"),
    ],
)
def test_wrong_use_is_one_line(tmp_path, monkeypatch, capsys, words, message) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ablate", *words]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
    assert not list(Path().iterdir())


def test_an_unknown_table_names_the_known_ones(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["ablate", "table5"])
    assert stop.value.code == 2 and "table2" in capsys.readouterr().err
