"""The folder of an ablation, and what a rerun in it must agree with.

OUT/settings.json          settings, the hash of the toy weights, updates and how they were chosen
OUT/data/                  what rows are trained on, see `train.ablate.data`
OUT/rows/C-0/              the run that trained row C with seed 0, as `live2diff train` leaves it
OUT/measured/C-0.json      its figures, scene by scene; C-0.png: frames of the first scene
OUT/table2/                results.json, table.md and rows.png
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from live2diff.errors import UsageError
from live2diff.files import write_json
from live2diff.toy.weights import FOLDER as WEIGHTS
from train.ablate.settings import AblateSettings

_FORMAT = "live2diff ablation 1"


@dataclass(frozen=True)
class Budget:
    """Minutes of training that were asked for, with how many seeds.

    It chooses the updates once: other tables and more seeds in the same folder keep them.
    """

    minutes: float
    seeds: int


@dataclass(frozen=True)
class Updates:
    """Updates of both stages.

    Attributes:
        budget: what they were chosen by; None: they were given.
        seconds: what an update took then: without depth, and with it where a row has it.
    """

    stage1: int
    stage2: int
    budget: Budget | None = None
    seconds: tuple[float, ...] = ()

    @property
    def words(self) -> str:
        """The options that ask for them."""
        return f"--updates {self.stage1} --stage2-updates {self.stage2}"


class Folder:
    """An ablation's folder. Opening writes nothing; `begin` does.

    Attributes:
        updates: that its rows are trained for; None as long as no row is.
        weights: a hash of the toy weights.

    Raises:
        UsageError: the folder is something else, or holds what was made with other settings or toy weights.
    """

    def __init__(self, path: Path, settings: AblateSettings, overwrite: bool = False):
        self.path, self.updates = path, None
        self.weights = _weights()
        self._fixed = {"settings": settings.fixed(), "weights": self.weights}
        begun = self._read()
        self._replaces = overwrite and begun is not None
        if begun is not None and not overwrite and any(each.exists() for each in self._made):
            try:
                self._check(begun)
                self.updates = _updates(begun["updates"])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise UsageError(f"{path / 'settings.json'}: is damaged; remove the folder") from error

    def begin(self, updates: Updates | None) -> None:
        """Note what the folder is for, and the updates once they are known. `overwrite` removes first."""
        if self._replaces:
            for each in self._made:
                if each.exists():  # what cannot be removed must not pass for rows of the new settings
                    shutil.rmtree(each)
            self._replaces = False
        self.updates = updates
        noted = None if updates is None else asdict(updates)
        write_json(self.path / "settings.json", {"format": _FORMAT, **self._fixed, "updates": noted})

    @property
    def _made(self) -> list[Path]:
        return [self.path / name for name in ("data", "rows", "measured", "table2", "table3", "table4")]

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def dataset(self) -> Path:
        """The shards; they are there once they are whole."""
        return self.data / "shards"

    def run(self, training: str, seed: int) -> Path:
        return self.path / "rows" / f"{training}-{seed}"

    def measured(self, row: str, seed: int) -> Path:
        return self.path / "measured" / f"{row}-{seed}.json"

    def strip(self, row: str, seed: int) -> Path:
        return self.measured(row, seed).with_suffix(".png")

    def _read(self) -> dict[str, Any] | None:
        try:
            begun = json.loads((self.path / "settings.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            begun = None
        except (ValueError, NotADirectoryError) as error:
            raise UsageError(f"--out {self.path}: is no folder of an ablation; choose another") from error
        ours = isinstance(begun, dict) and begun.get("format") == _FORMAT
        if not ours and self.path.exists() and any(self.path.iterdir()):
            raise UsageError(f"--out {self.path}: exists and is no folder of an ablation; choose another")
        return begun if ours else None

    def _check(self, begun: dict[str, Any]) -> None:
        before, now = begun["settings"], self._fixed["settings"]
        for key, value in now.items():
            if before.get(key) != value:
                raise UsageError(
                    f"--out {self.path}: was begun with {key}={before.get(key)}, now {key}={value}; choose "
                    "another, or replace it with --overwrite"
                )
        if begun.get("weights") != self._fixed["weights"]:
            raise UsageError(
                f"--out {self.path}: was begun with other toy weights than the package has now; choose "
                "another, or replace it with --overwrite"
            )


def _updates(noted: Any) -> Updates | None:
    if noted is None:
        return None
    budget = noted["budget"] and Budget(**noted["budget"])
    return Updates(int(noted["stage1"]), int(noted["stage2"]), budget, tuple(noted["seconds"]))


def _weights() -> str:
    """A hash of all weights of the toy world."""
    return hashlib.sha256((WEIGHTS / "SHA256SUMS").read_bytes()).hexdigest()
