"""Shards to batches.

The order of samples is a function of the seed and the number of readers (ranks x workers): every epoch
permutes the shards, deals them to the readers, and shuffles samples in a buffer. A run that resumes skips
whole epochs by counting their clips, and the samples it has seen of the last one without decoding them.
"""

from __future__ import annotations

import functools
import itertools
import json
import random
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import lightning
import numpy as np
import torch
import webdataset as wds
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from live2diff.errors import DataError, UsageError
from live2diff.images import cover, to_tensor
from train.clips import read_frames
from train.noise import generator, sample_seed
from train.shards import count_clips, find_shards, one_line, read_shards


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
        reader, readers = self.rank * workers + line, self.world * workers
        count = functools.cache(count_clips)
        for epoch in itertools.count():
            shards = list(self.shards)
            random.Random(f"{self.seed}/{epoch}").shuffle(shards)
            shards = shards[reader::readers]
            if seen:
                clips = sum(map(count, shards))
                if 0 < clips <= seen:
                    seen -= clips
                    continue
            shuffle = wds.shuffle(self.config["shuffle"], rng=random.Random(f"{self.seed}/{epoch}/{reader}"))
            empty = True
            for sample in itertools.islice(shuffle(read_shards(shards)), seen, None):
                empty = False
                yield self._decode(sample, epoch)
            if empty:
                raise DataError(f"{shards[0]}: no clip; make the dataset again")
            seen = 0

    def _decode(self, sample: dict[str, Any], epoch: int) -> dict[str, Any]:
        config, key = self.config, sample["__key__"]
        seed = sample_seed(self.seed, epoch, key)
        rng = generator(seed)
        try:
            for member in ("mp4", "txt", "json"):
                if member not in sample:
                    raise ValueError(f"its .{member} is missing")
            record = json.loads(sample["json"])
            length = record.get("frames") if isinstance(record, dict) else None
            if type(length) is not int:
                raise ValueError("its .json has no whole number under the key frames")
            span = (config["frames"] - 1) * config["stride"] + 1
            if length < span:
                raise ValueError(
                    f"{length} frames, but {config['frames']} at stride {config['stride']} need {span}: "
                    "lower data.stride or rebuild with longer clips"
                )
            start = int(rng.integers(length - span + 1))
            frames = read_frames(sample["mp4"], start, config["frames"], config["stride"])
            caption = sample["txt"].decode("utf-8").strip()
        except Exception as error:  # a decoder may raise anything on damaged bytes
            raise DataError(f"{sample['__url__']}: clip {key}: {one_line(error)}") from error
        if rng.random() < config["hflip"]:
            frames = frames[:, :, ::-1]
        if rng.random() < config["caption_dropout"]:
            caption = ""
        size = (config["size"], config["size"])
        video = to_tensor(np.stack([cover(frame, size) for frame in frames]))
        return {"video": video, "caption": caption, "key": key, "seed": seed}


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """A batch, as `default_collate` makes it, but seeds stay numbers: on a GPU each would cost a wait."""
    return {**default_collate(samples), "seed": [sample["seed"] for sample in samples]}


def _ignore_ctrl_c(worker: int) -> None:
    # A terminal's Ctrl-C reaches the whole group. The main process decides: it still needs its batches.
    # TERM stays: it is how the main process ends a worker that is busy.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
            collate_fn=collate,
            worker_init_fn=_ignore_ctrl_c,
            pin_memory=torch.cuda.is_available(),
            multiprocessing_context="spawn" if workers else None,
        )
