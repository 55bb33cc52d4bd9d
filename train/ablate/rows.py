"""The rows of the paper's Tables 2 and 4 (Live2Diff, Sec. 4.3): how each is trained and streamed.

The same rows at real size are conf/experiment/ablation_{a,b,c,d}.yaml and warmup4.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from live2diff.stream.pipeline import StreamMask


@dataclass(frozen=True)
class Training:
    """One way to train, an experiment of `live2diff train` with some settings changed.

    Attributes:
        base: the training whose model it goes on with; None: the package's image model and motion modules,
            whose frames all see each other.
        depth: whether it is conditioned on depth, which takes longer.
    """

    name: str
    experiment: str
    changes: tuple[str, ...] = ()
    base: str | None = None
    depth: bool = False

    def overrides(self, run: Path, base: Path | None, dataset: Path, updates: int, seed: int) -> list[str]:
        """The settings of its run in the folder `run`."""
        words = [
            f"experiment={self.experiment}",
            *self.changes,
            f"data.path={quoted(dataset)}",
            f"run_dir={quoted(run)}",
            f"name={quoted(run.name)}",
            f"seed={seed}",
            f"trainer.updates={updates}",
            "trainer.accelerator=cpu",  # the same weights on any machine, but for rounding
            f"trainer.log_every={max(1, updates // 5)}",
            "trainer.ema=null",  # what is measured are the weights as they were trained, of all rows
            "validation=off",
        ]
        return words if base is None else [*words, f"model.saved={quoted(base)}"]


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        key: of its measurements; rows of two tables that are the same have the same one.
        label, about: what it is called in the table, and what it is.
        training: what is streamed; None: nothing, the true translations themselves are measured.
        mask: who sees whom in the stream; None: as it was trained.
        paper: the paper's figures, by the figure of ours that stands for each.
    """

    key: str
    label: str
    about: str
    training: str | None
    mask: StreamMask | None = None
    paper: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """That in each of `pairs` the first row has a better `figure` than the second."""

    text: str
    figure: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """What it is called, its rows in order, and what the paper claims of them, by their labels."""

    title: str
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]

    @property
    def trainings(self) -> list[Training]:
        """What must be trained for it, each once, bases first."""
        names: list[str] = []
        for row in self.rows:
            if row.training is not None:
                training = TRAININGS[row.training]
                names += [name for name in (training.base, training.name) if name]
        return [TRAININGS[name] for name in dict.fromkeys(names)]


TRAININGS = {
    training.name: training
    for training in (
        Training("A", "toy_stage1", ("trainer.mask=causal",)),
        Training("C", "toy_stage1"),
        Training("C+", "toy_stage2", ("trainer.depth=false", "trainer.trainable=[motion]"), base="C"),
        Training("D", "toy_stage2", base="C", depth=True),
        Training("Lw4", "toy_stage1", ("model.settings.warmup=4",)),
    )
}


def quoted(value: Path | str) -> str:
    """A value of a setting that may hold any character."""
    return json.dumps(str(value), ensure_ascii=False)


def _paper(depth_mse: float, clip: float, warp_error: float | None = None) -> dict[str, float]:
    figures = {"depth_mse": depth_mse, "latent_temporal": clip}
    return figures if warp_error is None else {**figures, "warp_error": warp_error}


_TRUTH = Row("truth", "truth", "the true cartoon", None)
_D_BEST = (("D", "A"), ("D", "B"), ("D", "C"))
_C_STEADIER = (("C", "A"), ("C", "B"))
_LW8 = (("Lw 8", "Lw 4"),)

TABLES = {
    "table2": Table(
        "Table 2: who sees whom, and depth",
        (
            Row("A", "A", "plain causal mask", "A", paper=_paper(2.29, 95.43, 0.0968)),
            Row("B", "B", "C, streamed causal", "C", "causal", _paper(2.39, 95.28, 0.1125)),
            Row("C", "C", "warm-up mask", "C", paper=_paper(2.22, 95.80, 0.0966)),
            Row("C+", "C+", "C, trained for as long as D", "C+"),
            Row("D", "D", "C, then with depth", "D", paper=_paper(1.67, 95.78, 0.0768)),
            _TRUTH,
        ),
        (
            Claim("D is best in structure", "depth_mse", _D_BEST),
            Claim("D is best in structure", "depth_mse_aligned", _D_BEST),
            Claim("D is better than C trained for as long", "depth_mse", (("D", "C+"),)),
            Claim("D is better than C trained for as long", "depth_mse_aligned", (("D", "C+"),)),
            Claim("C is steadier than A and B", "latent_temporal", _C_STEADIER),
            Claim("C is steadier than A and B", "warp_error", _C_STEADIER),
            Claim("C is steadier than A and B", "flicker", _C_STEADIER),
            Claim("B has the worst warp error", "warp_error", (("A", "B"), ("C", "B"), ("D", "B"))),
        ),
    ),
    "table4": Table(
        "Table 4: the length of the warm-up",
        (
            Row("Lw4", "Lw 4", "4 warm-up frames, no depth", "Lw4", paper=_paper(2.25, 95.63)),
            Row("C", "Lw 8", "8 warm-up frames, no depth", "C", paper=_paper(2.22, 95.80)),
            _TRUTH,
        ),
        (
            Claim("8 warm-up frames are steadier than 4", "latent_temporal", _LW8),
            Claim("8 warm-up frames keep structure better", "depth_mse", _LW8),
        ),
    ),
}
