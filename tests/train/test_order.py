"""The order of samples: a permutation every epoch, found at any place at once, the same for all readers."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from train.order import Order, Place, numbers

COUNTS = [3, 1, 4, 1, 5, 9, 2, 6]  # 31 clips
SHAPES = [
    (1, 0, 1),
    (1, 2, 3),
    (2, 1, 2),
    (3, 4, 5),
    (2, 3, 7),
    (5, 2, 31),
    (4, 3, 10),
]  # ranks, workers, batch


def epoch(order: Order, number: int) -> list[Place]:
    length = order.epoch_length
    return [order[i] for i in range(number * length, (number + 1) * length)]


@pytest.mark.parametrize("block", [1, 3, 8, 99])
def test_every_clip_once_per_epoch(block):
    order = Order(COUNTS, seed=0, block=block)
    everything = {(shard, clip) for shard, count in enumerate(COUNTS) for clip in range(count)}
    epochs = [[(p.shard, p.clip) for p in epoch(order, number)] for number in range(3)]
    for places in epochs:
        assert len(places) == 31 and set(places) == everything
    assert epochs[0] != epochs[1] != epochs[2]  # another order each time
    assert [p.epoch for p in epoch(order, 2)] == [2] * 31


def test_the_order_is_a_function_of_its_arguments():
    """Asked anywhere, in any order, by anyone: the same answer. So resuming costs nothing."""
    order, places = Order(COUNTS, seed=7, block=3), []
    for number in (500, 3, 62, 61, 93, 30, 31, 3):
        places.append(order[number])
        assert places[-1] == Order(COUNTS, seed=7, block=3)[number]
    assert places[1] == places[-1]
    assert epoch(order, 0) != epoch(Order(COUNTS, seed=8, block=3), 0)


def test_a_block_holds_a_few_shards_and_mixes_them():
    order = Order([10] * 12, seed=0, block=4)
    for first in range(0, 120, 40):
        shards = [order[i].shard for i in range(first, first + 40)]
        assert Counter(shards) == {shard: 10 for shard in set(shards)} and len(set(shards)) == 4
        assert len(list(itertools.groupby(shards))) > 20  # not one shard after the other
    assert {order[i].shard for i in range(40)} != {order[i].shard for i in range(120, 160)}


def test_shards_without_clips_are_no_places():
    order = Order([0, 2, 0, 0, 3, 0], seed=1, block=2)
    for number in range(4):
        assert sorted((p.shard, p.clip) for p in epoch(order, number)) == [
            (1, 0),
            (1, 1),
            (4, 0),
            (4, 1),
            (4, 2),
        ]


def test_a_large_dataset_answers_at_once():
    order = Order([300] * 10_000, seed=0, block=16)
    assert order[10**9].epoch == 333


def micro_steps(world: int, workers: int, batch: int, steps: range) -> list[list[int]]:
    """The samples of each micro-step of the whole run, as DataLoaders on every rank would collect them."""
    collected = []
    for rank in range(world):
        readers = [
            numbers(steps, batch=batch, rank=rank, world=world, worker=worker, workers=max(1, workers))
            for worker in range(max(1, workers))
        ]
        turns = itertools.cycle(readers)
        collected.append([list(itertools.islice(next(turns), batch)) for _ in steps])
    return [sum(batches, []) for batches in zip(*collected, strict=True)]


@pytest.mark.parametrize(("world", "workers", "batch"), SHAPES)
def test_ranks_and_workers_share_the_samples_without_overlap(world, workers, batch):
    """Over several epochs of 31 clips, none left out and none taken twice."""
    steps = micro_steps(world, workers, batch, range(13))
    assert sum(steps, []) == list(range(13 * world * batch))


@pytest.mark.parametrize(("world", "workers", "batch"), SHAPES)
@pytest.mark.parametrize("start", [1, 2, 5, 8])
def test_resuming_goes_on_in_the_same_order(world, workers, batch, start):
    whole = micro_steps(world, workers, batch, range(12))
    assert micro_steps(world, (workers + start) % 4, batch, range(start, 12)) == whole[start:]


def test_the_order_does_not_depend_on_the_number_of_ranks():
    """batch x ranks x micro-steps per update = 24 in every case; update 3 begins where two are done."""
    updates = set()
    for world, batch, accumulate in ((1, 1, 24), (2, 4, 3), (4, 2, 3), (3, 8, 1), (1, 24, 1), (12, 1, 2)):
        steps = micro_steps(world, 2, batch, range(2 * accumulate, 3 * accumulate))
        updates.add(tuple(sum(steps, [])))
    assert updates == {tuple(range(48, 72))}
