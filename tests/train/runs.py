"""Small runs for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from live2diff.model.build import build
from train.data import Clips, collate
from train.module import Diffusion
from train.run import train
from train.settings import load_config

SMALL = ["experiment=tiny", "validation=off", "data.size=32", "trainer.log_every=1"]
FAST = [*SMALL, "model.settings.size=[32,32]"]


def module_and_clips(dataset: Path, *overrides: str, seed: int = 0):
    config = load_config([*FAST, f"data.path={dataset}", *overrides])
    module = Diffusion(build(config["model"], seed=0), config["trainer"], config["optim"])
    return module, iter(Clips(config["data"], seed=seed, batch=1, batches=99))


def take(clips, count: int) -> dict[str, Any]:
    return collate([next(clips) for _ in range(count)])


def run(dataset: Path, folder: Path, *overrides: str) -> int:
    return train([*FAST, f"data.path={dataset}", f"run_dir={folder}", *overrides])
