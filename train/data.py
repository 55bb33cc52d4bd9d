"""Shards to batches.

The order of samples is a function of the seed alone: every epoch permutes the shards, deals them to the
workers of all ranks, and shuffles samples in a buffer. A run that resumes skips the samples it has seen
without decoding them.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
import webdataset as wds
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from live2diff.errors import DataError, UsageError
from live2diff.images import cover, to_tensor
from train.clips import read_frames
from train.noise import generator, sample_seed


def find_shards(folder: str | Path, split: str) -> list[Path]:
    """The clip shards of a dataset's split, sorted. Raises UsageError when there are none."""
    folder = Path(folder)
    shards = sorted((folder / split).glob("clips-*.tar"))
    if not shards:
        state = "holds no shards" if folder.is_dir() else "does not exist"
        raise UsageError(
            f"data.path={folder}: {folder / split} {state}; make a dataset with `live2diff data build`"
        )
    return shards


class Clips(IterableDataset):
    """An endless sequence of training samples.

    A sample is {"video": float32 (3, F, H, W) in [-1, 1], "caption": str, "key": str, "seed": int}; `seed`
    determines the sample's random draws (see `train.noise`).

    Args:
        config: the `data` group of the configuration.
        seed: the run's seed.
        batch: samples per batch; workers fill whole batches in turn, as DataLoader does.
        batches: length of the whole run in batches, this rank's.
        start: batches already consumed by this rank.
        rank, world: this process among all that train.
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
    ):
        self.config, self.seed, self.batch, self.start = config, seed, batch, start
        self.batches, self.rank, self.world = batches, rank, world
        self.shards = find_shards(config["path"], config["split"])
        readers = world * max(1, config["workers"])
        if len(self.shards) < readers:
            raise UsageError(
                f"data.path={config['path']}: {len(self.shards)} shards for {readers} readers, "
                f"{world} ranks x data.workers={config['workers']}; lower data.workers or make smaller shards"
            )

    def __len__(self) -> int:
        return self.batches * self.batch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        # DataLoader takes batches from its workers in turn, beginning with worker 0 after a resume too: this
        # worker continues the line of whichever one's turn it was.
        line = (self.start + worker) % workers
        seen = len(range(line, self.start, workers)) * self.batch
        for epoch, sample in itertools.islice(self._encoded(self.rank * workers + line, workers), seen, None):
            yield self._decode(sample, epoch)

    def _encoded(self, reader: int, workers: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """(epoch, undecoded sample) without end: this reader's share of every epoch."""
        for epoch in itertools.count():
            shards = [str(shard) for shard in self.shards]
            random.Random(f"{self.seed}/{epoch}").shuffle(shards)
            rng = random.Random(f"{self.seed}/{epoch}/{reader}")
            samples = wds.DataPipeline(
                wds.SimpleShardList(shards[reader :: self.world * workers]),
                # Only the named members, never unpickled: webdataset's own decoders are not used.
                wds.tarfile_to_samples(handler=wds.reraise_exception),
                wds.shuffle(self.config["shuffle"], rng=rng),
            )
            empty = True
            for sample in samples:
                empty = False
                yield epoch, sample
            if empty:
                raise DataError(
                    f"data.path={self.config['path']}: no clip in {shards[reader]}; check the dataset"
                )

    def _decode(self, sample: dict[str, Any], epoch: int) -> dict[str, Any]:
        config, key = self.config, sample["__key__"]
        seed = sample_seed(self.seed, epoch, key)
        rng = generator(seed)
        try:
            length = json.loads(sample["json"])["frames"]
            span = (config["frames"] - 1) * config["stride"] + 1
            if length < span:
                raise ValueError(
                    f"{length} frames, but {config['frames']} at stride {config['stride']} need {span}: "
                    "lower data.stride or rebuild with longer clips"
                )
            start = int(rng.integers(length - span + 1))
            frames = read_frames(sample["mp4"], start, config["frames"], config["stride"])
            caption = sample["txt"].decode("utf-8").strip()
        except (KeyError, ValueError, OSError) as error:
            raise DataError(f"{sample['__url__']}: clip {key}: {error}") from error
        if rng.random() < config["hflip"]:
            frames = frames[:, :, ::-1]
        if rng.random() < config["caption_dropout"]:
            caption = ""
        size = (config["size"], config["size"])
        video = to_tensor(np.stack([cover(frame, size) for frame in frames]))
        return {"video": video, "caption": caption, "key": key, "seed": seed}


class ClipData(lightning.LightningDataModule):
    """Training batches for a run of `updates` x `accumulate` micro-steps.

    The position is not saved: it follows from the number of updates done.
    """

    def __init__(self, config: Mapping[str, Any], trainer: Mapping[str, Any], seed: int):
        super().__init__()
        self.config, self.run, self.seed = config, trainer, seed
        find_shards(config["path"], config["split"])  # a wrong path is told before anything is built

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
        )
        workers = self.config["workers"]
        return DataLoader(
            clips,
            batch_size=self.run["batch"],
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context="spawn" if workers else None,
        )
