"""Minutes of training -> updates: the same number for every row, from a short measured step time.

With S seeds, n updates of stage 1 and 2 n of stage 2 take

    60 minutes = S (n times the seconds of each stage-1 row + 2 n times the seconds of each stage-2 row)

so that rows are equal in updates, not in minutes: one with depth takes longer.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from live2diff.errors import UsageError
from train.ablate.folder import Budget, Updates
from train.ablate.rows import Training
from train.ablate.settings import STAGE2

_STEPS = 4  # timed, after one that is not


def choose_updates(budget: Budget, trainings: Sequence[Training], dataset: Path) -> Updates:
    """Updates for a budget, on this machine as busy as it is now.

    Raises:
        UsageError: the time is too short for one update.
    """
    probes = [probe(deep) for deep in sorted({False, *(training.depth for training in trainings)})]
    seconds = [step_seconds(each.overrides(Path("none"), None, dataset, 1, 0)) for each in probes]
    count = updates_for(budget, trainings, seconds)
    return Updates(count, STAGE2 * count, budget, tuple(round(each, 4) for each in seconds))


def probe(deep: bool) -> Training:
    """What is timed: stage 1, or as stage 2 with depth, but on weights that are there already."""
    changes = ("trainer.depth=true", "trainer.trainable=[motion,depth]") if deep else ()
    return Training("probe", "toy_stage1", changes)


def updates_for(budget: Budget, trainings: Sequence[Training], seconds: Sequence[float]) -> int:
    """Updates of stage 1, when one takes `seconds[0]`, with depth `seconds[1]`. Raises as above."""
    of_one = budget.seeds * sum(
        (STAGE2 if training.base else 1) * seconds[training.depth] for training in trainings
    )
    count = int(60 * budget.minutes / of_one)
    if count < 1:
        raise UsageError(
            f"--budget {budget.minutes:g}: too short for one update of every row; the least here is "
            f"{of_one / 60:.2g} minutes, or use fewer --seeds"
        )
    return count


def step_seconds(overrides: Sequence[str]) -> float:
    """What an update takes, reading included: the median of a few."""
    from live2diff.model.build import as_trained, build
    from train.columns import choose_parts
    from train.data import Clips, collate
    from train.module import Diffusion
    from train.settings import load_config

    config = load_config(overrides)
    data, trainer = config["data"], config["trainer"]
    model = as_trained(build(config["model"], config["seed"]), config)
    module = Diffusion(model, trainer, config["optim"])
    module.unet.train()
    optimiser = module.configure_optimizers()
    parts = choose_parts(data, model, trainer["depth"])
    clips = iter(Clips(data, 0, batch=trainer["batch"], batches=1 + _STEPS, parts=parts))
    seconds = []
    for _ in range(1 + _STEPS):
        start = time.perf_counter()
        module.loss(collate([next(clips) for _ in range(trainer["batch"])])).backward()
        optimiser.step()
        optimiser.zero_grad()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])
