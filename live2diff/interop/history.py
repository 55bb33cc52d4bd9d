"""What a training run tells about itself, for the provenance of the model it made.

All of it is read from the run's folder and from the dataset it names; what is not there is left out.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from live2diff import __version__
from live2diff.errors import CheckpointError
from live2diff.runs import updates_of

_FILES = {"raw": "weights.safetensors", "ema": "ema.safetensors"}
_TOTALS = ("clips", "frames", "seconds")


def trained_weights(checkpoint: Path, kind: str) -> Path:
    """The file of a checkpoint's trained parameters: `raw`, or `ema` for their average.

    Raises:
        CheckpointError: the run kept no average.
    """
    path = checkpoint / _FILES[kind]
    if kind == "ema" and not path.is_file():
        raise CheckpointError(
            f"{checkpoint}: holds no average of the weights ({path.name}); take the raw ones"
        )
    return path


def run_facts(checkpoint: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """How the run of `checkpoint` trained, on what, and how far its loss came, as plain values."""
    updates = updates_of(checkpoint)
    facts = {"run": config["name"], "updates": updates}
    facts |= {key: config[key] for key in ("seed", "data", "optim", "trainer")}
    dataset = dataset_facts((config["data"] or {}).get("path"))
    if dataset:
        facts["dataset"] = dataset
    metrics = _losses(checkpoint.parents[1] / "metrics.csv", updates, config["trainer"])
    return facts | ({"metrics": metrics} if metrics else {})


def dataset_facts(path: Any) -> dict[str, Any]:
    """Totals and identity of the dataset at `path`; empty when its `dataset.json` is out of reach."""
    try:
        data = json.loads((Path(path) / "dataset.json").read_text(encoding="utf-8"))
        totals = {key: data["totals"][key] for key in _TOTALS}
        return {**totals, "config_hash": data["config_hash"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _losses(path: Path, updates: int, trainer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The last losses logged up to `updates`, each with the signature that says what exactly it is."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if int(row["update"]) <= updates]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    last: dict[str, tuple[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name and "loss" in name and value and _is_number(value):
                last[name] = (int(row["update"]), float(value))
    extras = "".join(f", {key} {trainer[key]}" for key in ("min_snr", "offset_noise") if trainer.get(key))
    loss = f"{trainer['loss']} on the prediction{extras}"
    how = f"{loss}; mask {trainer['mask']}; live2diff {__version__}"
    return [
        {"name": name, "value": value, "signature": f"{name}; update {update}; {how}"}
        for name, (update, value) in last.items()
    ]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
