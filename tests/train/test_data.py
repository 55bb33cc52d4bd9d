"""Reading shards: order, resume position, errors."""

from __future__ import annotations

import io
import itertools

import av
import numpy as np
import pytest
import torch
import webdataset as wds
from torch.utils.data import DataLoader

from live2diff.errors import DataError, UsageError
from tests.train.shards import DATA, make_dataset
from train.clips import read_frames
from train.data import Clips, collate
from train.noise import draw, sample_seed
from train.shards import read_shards


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


def test_a_resumed_run_continues_the_order_of_two_workers(dataset):
    assert keys(dataset, 8, 2, start=1) == keys(dataset, 10, 2)[2:]


def test_past_epochs_are_counted_not_read(dataset, monkeypatch):
    """Four epochs of 6 batches lie before batch 25; only the fifth's tars are read."""
    expected = keys(dataset, 60)[50:]
    read = []
    monkeypatch.setattr("train.data.read_shards", lambda shards: read.append(shards) or read_shards(shards))
    assert keys(dataset, 10, start=25) == expected
    assert len(read) == 1


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


def shard_with(folder, **members: bytes):
    """A dataset of one clip with these members, by extension."""
    (folder / "train").mkdir(parents=True)
    with wds.TarWriter(str(folder / "train/clips-000000.tar")) as writer:
        writer.write({"__key__": "clip", **members})
    return folder


def sound_only() -> bytes:
    """An MP4 without a picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


JSON = b'{"frames": 40}'


@pytest.mark.parametrize(
    ("mp4", "record", "message"),
    [
        (b"no video at all", JSON, "Invalid data"),
        (b"", JSON, "Invalid data|End of file"),
        (sound_only(), JSON, "holds no video"),
        (b"", b"[]", "no whole number under the key frames"),
        (b"", b'{"frames": "40"}', "no whole number under the key frames"),
        (b"", b"{", "Expecting property name"),
        (b"", b"[" * 100_000, "recursion"),
    ],
)
def test_a_damaged_clip_is_named(tmp_path, mp4, record, message):
    dataset = shard_with(tmp_path, mp4=mp4, txt=b"", json=record)
    with pytest.raises(DataError, match=f"clips-000000.tar: clip clip: .*({message})") as error:
        next(iter(Clips({**DATA, "path": str(dataset)}, seed=0, batch=1, batches=9)))
    assert "\n" not in str(error.value)


def test_a_cut_clip_is_named(tmp_path):
    dataset = make_dataset(tmp_path, shards=1, clips_per_shard=1, damage=True)
    with pytest.raises(DataError, match="clips-000000.tar: clip 00"):
        next(iter(Clips({**DATA, "path": str(dataset)}, seed=0, batch=1, batches=9)))


def test_a_missing_member_is_named(tmp_path):
    dataset = shard_with(tmp_path, mp4=b"", json=JSON)
    with pytest.raises(DataError, match="clip clip: its .txt is missing"):
        next(iter(Clips({**DATA, "path": str(dataset)}, seed=0, batch=1, batches=9)))


@pytest.mark.parametrize("start", [0, 99])
def test_a_damaged_shard_is_named(tmp_path, start):
    dataset = make_dataset(tmp_path, shards=1, clips_per_shard=2)
    shard = dataset / "train/clips-000000.tar"
    shard.write_bytes(shard.read_bytes()[:700])
    with pytest.raises(
        DataError, match="clips-000000.tar: cannot be read .*(empty header|unexpected end of data)"
    ) as error:
        next(iter(Clips({**DATA, "path": str(dataset)}, seed=0, batch=1, batches=999, start=start)))
    assert "\n" not in str(error.value)


def test_seeds_of_a_batch_are_plain_numbers(dataset):
    """A tensor would go to the GPU with the batch, and each number read from it would wait for the GPU."""
    clips = iter(Clips({**DATA, "path": str(dataset)}, seed=0, batch=2, batches=9))
    batch = collate([next(clips), next(clips)])
    assert [type(seed) for seed in batch["seed"]] == [int, int]
    assert batch["video"].shape == (2, 3, 16, 32, 32)
