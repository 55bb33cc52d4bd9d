"""Rendered frames of the toy world as training data: a pool that is made once, and random batches from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from live2diff import toy
from live2diff.images import to_tensor
from train.throughput import TimedLoader

_SECONDS = 8.0  # frames are taken from the first seconds of a scene
Pool = dict[str, Any]  # tensors, one row a frame


def render_frames(count: int, size: tuple[int, int], looks: Sequence[str] = tuple(toy.LOOKS)) -> Pool:
    """One frame of each of the first `count` training scenes, in every look.

    Returns:
        image (N, 3, H, W) in [-1, 1], inverse_depth (N, H, W), and caption, a list: N = scenes times looks.
    """
    images, depths, captions = [], [], []
    first = toy.SPLITS["train"]
    for seed in range(first, first + count):
        time = np.random.default_rng(seed).uniform(0, _SECONDS, 1)
        for look in looks:
            rgb, depth = toy.frames(seed, time, size, look)
            images.append(to_tensor(rgb)[:, 0])
            depths.append(torch.from_numpy(depth[0]))
            captions.append(toy.caption(toy.Scene.sample(seed), look))
    return {"image": torch.stack(images), "inverse_depth": torch.stack(depths), "caption": captions}


def one_cycle(parameters: Iterable[nn.Parameter], optim: Mapping[str, Any], updates: int) -> Any:
    """Adam; its learning rate rises to `optim.lr` in the first tenth of the run, then falls to nothing."""
    optimiser = torch.optim.Adam(parameters, lr=optim["lr"], betas=tuple(optim["betas"]))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, optim["lr"], total_steps=updates, pct_start=0.1)
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class ToyFrames(lightning.LightningDataModule):
    """Random batches of `trainer.batch` rows of the pool that `make` gives; `index` counts."""

    def __init__(self, make: Callable[[], Mapping[str, torch.Tensor]], trainer: Mapping[str, Any], seed: int):
        super().__init__()
        self.make, self.run, self.seed = make, trainer, seed

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        accumulate = self.run["accumulate"]
        steps = range(self.trainer.global_step * accumulate, self.run["updates"] * accumulate)
        return TimedLoader(_Batches(self.make, self.run["batch"], steps, self.seed), batch_size=None)


class _Batches(IterableDataset):
    def __init__(self, make: Callable[[], Mapping[str, torch.Tensor]], batch: int, steps: range, seed: int):
        self.make, self.batch, self.steps, self.seed = make, batch, steps, seed

    def __len__(self) -> int:
        return self.steps.stop

    def __iter__(self) -> Iterator[dict[str, Any]]:
        pool = self.make()
        rows = len(next(iter(pool.values())))
        for index in self.steps:
            rng = np.random.default_rng([self.seed, index])
            chosen = torch.from_numpy(rng.choice(rows, self.batch, replace=False))
            yield {"index": index, **{name: values[chosen] for name, values in pool.items()}}
