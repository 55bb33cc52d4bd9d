"""Shards to batches, in the order of `train.order`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from multiprocessing import active_children
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any

import cv2
import lightning
import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from live2diff.errors import DataError, UsageError
from train.columns import Parts
from train.order import Order, numbers
from train.readers import find_reader
from train.samples import CorruptError, Samples
from train.shards import check_readers, find_shards, fingerprint
from train.signals import held_back
from train.throughput import TimedLoader

# Corrupt samples are judged as a share of no fewer than these: one at the start is not yet many.
_FEWEST = 1000


class Clips(IterableDataset):
    """The training samples of a run, from any place to its end (see `train.samples.Samples`).

    Which samples a micro-step takes follows from their numbers alone, so a run goes on exactly where it
    stopped with any number of workers, and in the same order with any number of ranks, if only
    `batch * world` times the micro-steps per update stays the same.

    A corrupt sample is left out with a line on the terminal, and the next good one in the order takes its
    place; each reader stops when they are more than `data.max_corrupt` of what it has read.

    Args:
        config: the `data` group of the configuration.
        seed: the run's seed.
        batch: samples per batch; workers fill whole batches in turn, as DataLoader does.
        batches: length of the whole run in batches, this rank's.
        start: batches already consumed by this rank.
        rank, world: this process among all that train.
        parts: what of a clip is read.
        overfit: samples that are taken again and again, the first of the run; 0: every sample in its turn.

    Raises:
        UsageError: no such dataset or split, or fewer shards than readers.
        SetupError: the video reader is not installed.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        seed: int,
        batch: int,
        batches: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        parts: Parts = Parts(),  # noqa: B008 - frozen
        overfit: int = 0,
    ):
        self.overfit = overfit
        self.config, self.seed, self.batch, self.start = config, seed, batch, start
        self.batches, self.rank, self.world, self.parts = batches, rank, world, parts
        self.shards = find_shards(config["path"], config["split"])
        find_reader(config["reader"])
        check_readers(config, len(self.shards), world)

    def __len__(self) -> int:
        return self.batches * self.batch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        order = Order([shard.clips for shard in self.shards], self.seed, self.config["shuffle"])
        samples = Samples(self.config, self.shards, self.seed, self.parts)
        places = numbers(
            range(self.start, self.batches),
            batch=self.batch,
            rank=self.rank,
            world=self.world,
            worker=worker,
            workers=workers,
        )
        seen = corrupt = 0
        for number in places:
            sample = None
            while sample is None:
                seen += 1
                try:
                    sample = samples[order[number % self.overfit if self.overfit else number]]
                except CorruptError as error:
                    corrupt += 1
                    self._check_share(error, corrupt, seen)
                    print(f"left out: {error}", file=sys.stderr, flush=True)
                    number += 1
            yield sample

    def _check_share(self, error: CorruptError, corrupt: int, seen: int) -> None:
        most = self.config["max_corrupt"]
        if corrupt > most * max(seen, _FEWEST):
            raise DataError(
                f"{error}; {corrupt} of {seen} samples could not be read, data.max_corrupt={most} allows "
                f"fewer: see `live2diff data check {self.config['path']}`"
            ) from error


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch, as `default_collate` makes it, but seeds stay numbers: on a GPU each would cost a wait."""
    return {**default_collate(samples), "seed": [sample["seed"] for sample in samples]}


class _Worker(SpawnProcess):
    """A loader process that signals to the run do not reach; `end_workers` ends it."""

    def start(self) -> None:
        with held_back():
            super().start()


class _Workers(SpawnContext):
    Process = _Worker


def end_workers() -> None:
    """End the loader processes, also one that hangs in a file system or a decoder."""
    TimedLoader.end_all()
    for worker in active_children():
        if isinstance(worker, _Worker):
            worker.kill()


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # as PyTorch does with its own: the workers are what runs side by side


class ClipData(lightning.LightningDataModule):
    """Training batches for a run of `updates` x `accumulate` micro-steps.

    The position is not saved: it follows from the number of updates done. What is saved is which clips the
    dataset held, since a run can only be continued on the same ones.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        trainer: Mapping[str, Any],
        seed: int,
        parts: Parts = Parts(),  # noqa: B008
    ):
        super().__init__()
        self.config, self.run, self.seed, self.parts = config, trainer, seed, parts
        self._fingerprint = fingerprint(find_shards(config["path"], config["split"]))

    def state_dict(self) -> dict[str, Any]:
        return {"clips": self._fingerprint}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["clips"] != self._fingerprint:
            raise UsageError(
                f"data.path={self.config['path']}: its clips are not those this run began with, so it cannot "
                "go on exactly; give another run_dir, or the dataset as it was"
            )

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        accumulate = self.run["accumulate"]
        clips = Clips(
            self.config,
            self.seed,
            batch=self.run["batch"],
            batches=self.run["updates"] * accumulate,
            start=self.trainer.global_step * accumulate,
            rank=self.trainer.global_rank,
            world=self.trainer.world_size,
            parts=self.parts,
            overfit=self.run["overfit"],
        )
        if self.trainer.is_global_zero:
            print(f"reading {self.parts} of {sum(shard.clips for shard in clips.shards)} clips", flush=True)
        workers = self.config["workers"]
        return TimedLoader(
            clips,
            batch_size=self.run["batch"],
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=_start_worker,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context=_Workers() if workers else None,
        )
