"""Reading shards: order, resume position, errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from live2diff.errors import DataError, UsageError
from tests.train.shards import DATA, make_dataset
from train.clips import read_frames
from train.data import Clips
from train.noise import draw, sample_seed


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=4, clips_per_shard=3)


def keys(dataset, count=20, workers=0, **changes) -> list[str]:
    config = {**DATA, "path": str(dataset), "workers": workers}
    clips = Clips(config, seed=0, batch=2, batches=50, **changes)
    context = "spawn" if workers else None
    loader = DataLoader(clips, batch_size=2, num_workers=workers, multiprocessing_context=context)
    batches = itertools.islice(loader, count // 2)
    return [key for batch in batches for key in batch["key"]]


def test_every_clip_once_per_epoch(dataset):
    order = keys(dataset, 24)
    assert sorted(order[:12]) == sorted(order[12:]) == sorted(set(order))
    assert order[:12] != order[12:]  # another order in the next epoch


def test_same_seed_same_order(dataset):
    assert keys(dataset) == keys(dataset)


@pytest.mark.parametrize("start", [1, 5, 7])
def test_a_resumed_run_continues_the_order(dataset, start):
    assert keys(dataset, 10, start=start) == keys(dataset, 10 + 2 * start)[2 * start :]


@pytest.mark.parametrize("start", [1, 2])
def test_a_resumed_run_continues_the_order_of_two_workers(dataset, start):
    assert keys(dataset, 8, 2, start=start) == keys(dataset, 8 + 2 * start, 2)[2 * start :]


def test_ranks_share_the_clips_without_overlap(dataset):
    parts = [keys(dataset, 6, rank=rank, world=2) for rank in range(2)]
    assert len(set(parts[0] + parts[1])) == 12


def test_a_sample_looks_the_same_in_any_batch(dataset):
    """Crop, flip, caption dropout and noise belong to the sample, not to its place in a batch."""
    config = {**DATA, "path": str(dataset)}
    singles = itertools.islice(Clips(config, seed=0, batch=1, batches=9), 6)
    pairs = itertools.islice(Clips(config, seed=0, batch=2, batches=9, start=1), 4)
    for one, two in zip(itertools.islice(singles, 2, 6), pairs, strict=True):
        assert one["key"] == two["key"] and one["seed"] == two["seed"] and one["caption"] == two["caption"]
        assert torch.equal(one["video"], two["video"])


def test_sample_format(dataset):
    sample = next(iter(Clips({**DATA, "path": str(dataset)}, seed=0, batch=1, batches=9)))
    assert sample["video"].shape == (3, 16, 32, 32)
    assert sample["video"].dtype == torch.float32
    assert -1 <= sample["video"].min() < sample["video"].max() <= 1


def test_captions_are_dropped_per_sample(dataset):
    def captions(probability):
        config = {**DATA, "path": str(dataset), "caption_dropout": probability}
        return [s["caption"] for s in itertools.islice(Clips(config, seed=0, batch=1, batches=99), 48)]

    assert all(captions(0.0)) and not any(captions(1.0))
    assert 10 < sum(not caption for caption in captions(0.5)) < 38


def test_random_access_finds_the_frames_asked_for(dataset):
    """Frames read by seeking are the frames of a full decode."""
    from webdataset import WebDataset

    shard = next((dataset / "train").glob("*.tar"))
    data = next(iter(WebDataset(str(shard), shardshuffle=False)))["mp4"]
    everything = read_frames(data, 0, 40, 1)
    for start, count, stride in ((0, 16, 1), (24, 16, 1), (5, 8, 4), (39, 1, 1)):
        got = read_frames(data, start, count, stride)
        assert np.array_equal(got, everything[start : start + count * stride : stride])
    with pytest.raises(ValueError, match="frames found"):
        read_frames(data, 30, 16, 1)


def test_seeds_are_spread():
    seeds = {sample_seed(0, epoch, f"key{i}") for epoch in range(10) for i in range(100)}
    assert len(seeds) == 1000


def test_timesteps_are_uniform_and_one_per_clip():
    timestep, noise, posterior = draw(range(2000), (1, 1, 1, 1), 1000, torch.device("cpu"))
    assert timestep.shape == (2000,) and noise.shape == posterior.shape == (2000, 1, 1, 1, 1)
    assert 0 <= timestep.min() < 20 and 980 < timestep.max() <= 999
    assert abs(float(timestep.float().mean()) - 499.5) < 25
    assert abs(float((noise * posterior).mean())) < 0.1  # independent draws


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"path": "nowhere"}, UsageError, "does not exist.*live2diff data build"),
        ({"split": "test"}, UsageError, "holds no shards"),
        ({"workers": 9}, UsageError, "4 shards for 9 readers.*lower data.workers"),
        ({"stride": 4}, DataError, "40 frames, but 16 at stride 4 need 61.*lower data.stride"),
    ],
)
def test_wrong_data_is_one_clear_line(dataset, change, error, message):
    with pytest.raises(error, match=message):
        next(iter(Clips({**DATA, "path": str(dataset), **change}, seed=0, batch=1, batches=9)))


def test_a_damaged_clip_is_named(tmp_path):
    dataset = make_dataset(tmp_path, shards=1, clips_per_shard=1, damage=True)
    with pytest.raises(DataError, match="clips-000000.tar: clip 00"):
        next(iter(Clips({**DATA, "path": str(dataset)}, seed=0, batch=1, batches=9)))
