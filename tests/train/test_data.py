"""Reading shards: order, resume position, errors."""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import re
import shutil
import tarfile

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from live2diff.errors import DataError, UsageError
from tests.train.shards import DATA, make_dataset, write_shards
from train.columns import Parts
from train.data import Clips, collate
from train.members import Tar
from train.noise import draw, sample_seed


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=4, clips_per_shard=3)


def keys(dataset, count=20, workers=0, **changes) -> list[str]:
    config = {**DATA, "path": str(dataset), "workers": workers}
    clips = Clips(config, seed=0, batch=2, batches=9999, **changes)
    context = "spawn" if workers else None
    loader = DataLoader(clips, batch_size=2, num_workers=workers, multiprocessing_context=context)
    batches = itertools.islice(loader, count // 2)
    return [key for batch in batches for key in batch["key"]]


def test_every_clip_once_per_epoch(dataset):
    order = keys(dataset, 24)
    assert sorted(order[:12]) == sorted(order[12:]) == sorted(set(order))
    assert order[:12] != order[12:]  # another order in the next epoch


@pytest.mark.parametrize("start", [1, 5, 7])
def test_a_resumed_run_continues_the_order(dataset, start):
    assert keys(dataset, 10, start=start) == keys(dataset, 10 + 2 * start)[2 * start :]


def test_loader_workers_do_not_change_the_order(dataset):
    """Through real DataLoaders, resumed with another number of workers."""
    expected = keys(dataset, 20)
    assert keys(dataset, 10, workers=2, start=3) == expected[6:16]


def test_ranks_share_the_order(dataset):
    ranks = [keys(dataset, 6, rank=rank, world=2, start=1) for rank in range(2)]
    turns = zip(*(zip(one[::2], one[1::2], strict=True) for one in ranks), strict=True)
    assert [key for turn in turns for batch in turn for key in batch] == keys(dataset, 16)[4:]


def test_resuming_late_reads_nothing_before(dataset, monkeypatch):
    """A thousand epochs lie before; only the clips asked for are read."""
    read = []
    original = Tar.read
    monkeypatch.setattr(Tar, "read", lambda self, key, kind: read.append(key) or original(self, key, kind))
    assert len(set(keys(dataset, 4, start=6000))) == len(set(read)) == 4


def test_near_duplicates_are_passed_over(dataset, tmp_path):
    """Their keys stand in duplicates.jsonl; every other clip is still met once an epoch."""
    shutil.copytree(dataset, tmp_path / "dataset")
    everything = sorted(keys(dataset, 12))
    shards = [f"train/clips-{number // 3:06d}.tar" for number in range(12)]
    pq.write_table(pa.table({"shard": shards, "key": everything}), tmp_path / "dataset/index.parquet")
    dropped = [everything[2], everything[5]]
    rows = [{"key": key, "duplicate_of": everything[0], "distance": 3} for key in dropped]
    lines = [json.dumps(row) + "\n" for row in rows]
    (tmp_path / "dataset/duplicates.jsonl").write_text("".join(lines))
    kept = keys(tmp_path / "dataset", 20)
    assert sorted(kept[:10]) == sorted(kept[10:]) == [key for key in everything if key not in dropped]


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
        ({"path": "."}, UsageError, "no finished dataset.*live2diff data build"),
        ({"split": "test"}, UsageError, "'test' holds no shards"),
        ({"workers": 9}, UsageError, "4 shards for 9 readers.*lower data.workers"),
        ({"stride": 4}, DataError, "40 frames, but 16 at stride 4 need 61.*lower data.stride"),
    ],
)
def test_wrong_data_is_one_clear_line(dataset, change, error, message):
    with pytest.raises(error, match=message):
        next(iter(Clips({**DATA, "path": str(dataset), **change}, seed=0, batch=1, batches=9)))


def shard_with(folder, **members: bytes):
    """A dataset of one clip with these members, by extension."""
    return write_shards(folder, [{"clip": members}])


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


def read_one(dataset, **changes):
    return next(iter(Clips({**DATA, "path": str(dataset), **changes}, seed=0, batch=1, batches=9)))


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
        read_one(dataset)
    assert "\n" not in str(error.value)


def test_a_missing_member_is_named(tmp_path):
    dataset = shard_with(tmp_path, mp4=b"", json=JSON)
    with pytest.raises(DataError, match="clip clip: its .txt is missing.*1 of 1 .*data.max_corrupt=0 allows"):
        read_one(dataset, max_corrupt=0)


def test_a_cut_clip_is_named(tmp_path):
    dataset = make_dataset(tmp_path, shards=1, clips_per_shard=1, damage=True)
    with pytest.raises(DataError, match="clips-000000.tar: clip 00"):
        read_one(dataset)


class Canary:
    def __reduce__(self):
        return os.mkdir, (os.environ["CANARY"],)


def test_hostile_members_are_never_unpickled(dataset, tmp_path, monkeypatch):
    """WebDataset's own `.decode()` runs pickles named .pyd or .pkl: here they are not even read."""
    monkeypatch.setenv("CANARY", str(tmp_path / "dead"))
    tar = Tar(next((dataset / "train").glob("*.tar")))
    good = {kind: tar.read(tar.keys[0], kind) for kind in ("mp4", "txt", "json")}
    evil = pickle.dumps(Canary())
    objects = io.BytesIO()
    np.save(objects, np.array([Canary()] * 40, object), allow_pickle=True)
    write_shards(tmp_path / "evil", [{"a": {**good, "pyd": evil, "pkl": evil, "json.pyd": evil}}])
    assert read_one(tmp_path / "evil")["video"].shape == (3, 16, 32, 32)
    arrays = {"latents.npy": objects.getvalue(), "latents_mirrored.npy": objects.getvalue()}
    column = write_shards(tmp_path / "column", [{"a": arrays}]) / "train/clips-000000.tar"
    column.rename(tmp_path / "evil/train/latents-000000.tar")
    config = {**DATA, "path": str(tmp_path / "evil")}
    parts = Parts(frames=False, columns={"latents": (8, 8, 8)})
    with pytest.raises(DataError, match="clip a: its .latents.*.npy is .* object, expected"):
        next(iter(Clips(config, seed=0, batch=1, batches=9, parts=parts)))
    assert not (tmp_path / "dead").exists()


def spoil(dataset, target, *names: str):
    """A copy of a dataset with these keys' videos overwritten."""
    shutil.copytree(dataset, target)
    for shard in target.glob("train/*.tar"):
        data = bytearray(shard.read_bytes())
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name in {f"{name}.mp4" for name in names}:
                    data[member.offset_data : member.offset_data + member.size] = bytes(member.size)
        shard.write_bytes(data)
    return target


def test_the_next_good_sample_takes_the_place_of_a_corrupt_one(dataset, tmp_path, capfd):
    """Wherever reading begins, however many read: places stay places."""
    clean = keys(dataset, 40)
    bad = {clean[2], clean[3], clean[11]}
    spoiled = spoil(dataset, tmp_path / "spoiled", *bad)
    expected = [next(key for key in clean[i:] if key not in bad) for i in range(24)]
    assert keys(spoiled, 24) == expected
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if clean[2] in line][0].startswith("left out: ")
    assert all("train/clips-00000" in line and "Invalid data" in line for line in lines)
    assert keys(spoiled, 8, start=5) == expected[10:18]
    ranks = [keys(spoiled, 4, rank=rank, world=2) for rank in range(2)]
    assert ranks == [expected[0:2] + expected[4:6], expected[2:4] + expected[6:8]]


def test_more_corrupt_samples_than_allowed_stop_the_run(dataset, tmp_path):
    """Half of the clips: judged over 1000 samples, a share of 0.01 is more than ten."""
    bad = sorted(keys(dataset, 12))[::2]
    spoiled = spoil(dataset, tmp_path / "spoiled", *bad)
    with pytest.raises(
        DataError, match=r"clip \w+: .*; 11 of \d+ samples could not be read, .*0.01.*data check"
    ):
        keys(spoiled, 100)


def test_the_rest_of_a_shard_that_was_cut_off_is_corrupt(dataset, tmp_path, capfd):
    target = tmp_path / "cut"
    shutil.copytree(dataset, target)
    shard = target / "train/clips-000002.tar"
    with tarfile.open(shard) as tar:
        third = [member for member in tar if member.name.endswith(".mp4")][2]
    os.truncate(shard, third.offset_data + 100)
    assert len(set(keys(target, 24))) == 11
    assert re.search(
        "left out: .*clips-000002.tar: clip .*(cut off|cannot be read to its end)", capfd.readouterr().err
    )


@pytest.mark.parametrize("start", [0, 99])
def test_a_damaged_shard_is_named(tmp_path, start):
    dataset = make_dataset(tmp_path, shards=1, clips_per_shard=2)
    os.truncate(dataset / "train/clips-000000.tar", 700)
    with pytest.raises(
        DataError, match="clips-000000.tar: clip .*(empty header|unexpected end of data)"
    ) as error:
        clips = Clips({**DATA, "path": str(dataset)}, seed=0, batch=1, batches=999, start=start)
        next(iter(clips))
    assert "\n" not in str(error.value)


def test_a_shard_that_is_gone_stops_the_run(tmp_path):
    """It may be back in a minute: leaving its clips out would change the run."""
    dataset = make_dataset(tmp_path, shards=1, clips_per_shard=1)
    (dataset / "train/clips-000000.tar").unlink()
    with pytest.raises(DataError, match="clips-000000.tar: cannot be read .No such file"):
        read_one(dataset)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "dataset.json: cannot be read"),
        ('{"splits": 3}', "splits is no table"),
        ('{"splits": {"train": {"shards": [{"name": "train/clips-000000.tar"}]}}}', "no 'clips'"),
        (
            '{"splits": {"train": {"shards": [{"name": "../x.tar", "clips": 1}]}}}',
            "train/x.tar: cannot be read",
        ),
    ],
)
def test_a_damaged_description_is_named(tmp_path, text, message):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_one(tmp_path)


def test_seeds_of_a_batch_are_plain_numbers(dataset):
    """A tensor would go to the GPU with the batch, and each number read from it would wait for the GPU."""
    clips = iter(Clips({**DATA, "path": str(dataset)}, seed=0, batch=2, batches=9))
    batch = collate([next(clips), next(clips)])
    assert [type(seed) for seed in batch["seed"]] == [int, int]
    assert batch["video"].shape == (2, 3, 16, 32, 32)
