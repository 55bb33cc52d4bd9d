"""In which order training meets the clips: a pure function, so that any place in it is found at once.

The samples of a run are numbered from 0, over all epochs. Every epoch permutes the shards, takes them in
blocks of a few, and permutes the clips within each block: a reader has only a block's shards open, and still
mixes clips of many sources. The number decides the clip; how many processes read has no say in it.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np


class Place(NamedTuple):
    """Where a sample is: `clip` counts within shard number `shard`, both from 0."""

    epoch: int
    shard: int
    clip: int


class Order:
    """Sample number -> place.

    Args:
        counts: clips of each shard.
        seed: of the run.
        block: shards whose clips are mixed.
    """

    def __init__(self, counts: Sequence[int], seed: int, block: int):
        self._counts = np.asarray(counts, np.int64)
        self._seed, self._block = seed, block
        self.epoch_length = int(self._counts.sum())
        # Readers go forward: what they need is this block and, at its end, the next.
        self._epoch = functools.lru_cache(maxsize=2)(self._plan_epoch)
        self._mixed = functools.lru_cache(maxsize=2)(self._mix_block)

    def __getitem__(self, number: int) -> Place:
        epoch, within = divmod(number, self.epoch_length)
        _, starts = self._epoch(epoch)
        block = bisect.bisect_right(starts, within) - 1
        shards, clips = self._mixed(epoch, block)
        return Place(epoch, int(shards[within - starts[block]]), int(clips[within - starts[block]]))

    def _plan_epoch(self, epoch: int) -> tuple[np.ndarray, list[int]]:
        """The shards in this epoch's order, and the number in it of each block's first sample."""
        shards = self._generator(epoch, 0).permutation(len(self._counts))
        sizes = np.add.reduceat(self._counts[shards], np.arange(0, len(shards), self._block))
        return shards, [0, *np.cumsum(sizes[:-1]).tolist()]

    def _mix_block(self, epoch: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Shard and clip of each sample of a block, mixed."""
        shards = self._epoch(epoch)[0][block * self._block : (block + 1) * self._block]
        of = np.repeat(shards, self._counts[shards])
        clips = np.concatenate([np.arange(count) for count in self._counts[shards]])
        mixed = self._generator(epoch, 1 + block).permutation(len(of))
        return of[mixed], clips[mixed]

    def _generator(self, epoch: int, what: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, epoch, what])


def numbers(
    steps: range, *, batch: int, rank: int = 0, world: int = 1, worker: int = 0, workers: int = 1
) -> Iterator[int]:
    """The samples of one loader worker of one rank, in order.

    Micro-step j of the run is `world` batches, one a rank. Workers take micro-steps in turn, as DataLoader
    asks them; so the samples of a micro-step depend on `batch` and `world` alone, those of an update on
    their product with the micro-steps per update.

    Args:
        steps: the micro-steps to be done, counted from the beginning of the run.
        batch: samples per rank and micro-step.
    """
    for step in steps[worker::workers]:
        first = (step * world + rank) * batch
        yield from range(first, first + batch)
