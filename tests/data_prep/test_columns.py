"""Columns: what the nets say of each clip, whole shards only, of one maker."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from data_prep import nets
from data_prep.columns import column_identities, make_columns
from data_prep.config import load_config
from live2diff.columns import COLUMNS, differences, quantise_depth, restore_depth
from live2diff.errors import CheckpointError, DataError, SetupError, UsageError
from live2diff.images import square
from live2diff.model.video_model import VideoModel
from tests.train.columns import build_columns, make_model

STEMS = ["train/clips-000000", "train/clips-000001"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """`dataset` with every column, `model` beside it."""
    folder = tmp_path_factory.mktemp("columns")
    build_columns(folder)
    return folder


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    return shutil.copytree(folder / "dataset", tmp_path / "dataset")


def config(folder, *more, columns="[latents,depth,text]"):
    fixed = ["prep=tiny", "size=40", "column_size=32"]
    return load_config([*fixed, f"columns={columns}", f"column_model={folder / 'model'}", *more])


def make(dataset, *arguments, **options) -> int:
    done: list[None] = []
    make_columns(dataset, STEMS, config(*arguments, **options), lambda: done.append(None))
    return len(done)


def members(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as file:
        return {entry.name: file.extractfile(entry).read() for entry in file}  # pyright: ignore


def array(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def files(dataset) -> dict[str, str]:
    names = [path for column in COLUMNS for path in dataset.glob(f"*/{column}-*")]
    return {str(path.relative_to(dataset)): hashlib.sha256(path.read_bytes()).hexdigest() for path in names}


def test_columns_are_what_the_nets_say(folder):
    """Every array of every clip, against the model itself run over the whole clip at once."""
    model = VideoModel.load(folder / "model")
    for stem in STEMS:
        clips = members(folder / "dataset" / f"{stem}.tar")
        found = {}
        for column in COLUMNS:
            found |= members(folder / "dataset" / f"{stem.replace('clips', column)}.tar")
        for key in [name.removesuffix(".mp4") for name in clips if name.endswith(".mp4")]:
            with av.open(io.BytesIO(clips[f"{key}.mp4"])) as container:
                frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            assert len(frames) == 24
            for suffix in ("", "_mirrored"):
                images = square(frames, 32, mirrored=bool(suffix))[None]
                latents = torch.cat(model.posterior(images), dim=1)[0].transpose(0, 1)
                stored = array(found.pop(f"{key}.latents{suffix}.npy"))
                assert stored.dtype == np.float16 and stored.shape == (24, 8, 8, 8)
                assert np.allclose(stored, latents, rtol=1e-3, atol=1e-3)
                raw = model.estimate_depth(images)[0].numpy()
                values = array(found.pop(f"{key}.depth{suffix}.npy"))
                ranges = array(found.pop(f"{key}.depth{suffix}_range.npy"))
                assert values.dtype == np.uint16 and values.max() == 65535  # not all of one depth
                spread = raw.max() - raw.min()
                assert np.abs(restore_depth(values, ranges) - raw).max() < 1e-4 * spread
            caption = clips[f"{key}.txt"].decode()
            text = array(found.pop(f"{key}.text.npy"))
            assert np.allclose(text, model.text([caption])[0], rtol=1e-3, atol=1e-3)
        assert not found


def test_side_cars_say_what_is_there(folder):
    dataset = folder / "dataset"
    for stem in STEMS:
        clips = json.loads((dataset / f"{stem}.json").read_text())
        for column in COLUMNS:
            path = dataset / f"{stem.replace('clips', column)}.tar"
            side_car = json.loads(path.with_suffix(".json").read_text())
            assert side_car["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            assert side_car["clips_sha256"] == clips["sha256"]
            assert side_car["keys"] == [record["key"] for record in clips["records"]]
            names = [name.partition(".")[0] for name in members(path)]
            assert list(dict.fromkeys(names)) == side_car["keys"]
            assert side_car["made_by"]["model"] == str(folder / "model")
    stated = json.loads((dataset / "dataset.json").read_text())["columns"]
    assert stated == column_identities(dataset)
    assert {name: made["shards"] for name, made in stated.items()} == {
        name: {"train": 2, "val": 0} for name in COLUMNS
    }


def test_a_dataset_built_without_columns_gets_them(folder, copy):
    """And what a kill or a person took away; finished shards are not touched. The same bytes each time."""
    before = files(copy)
    for name in before:
        if "latents" in name or "000001" in name:
            (copy / name).unlink()
    (copy / "train/.staged-01234567-depth-000001.tar").write_bytes(b"half")
    times = {name: os.stat(copy / name).st_mtime_ns for name in files(copy)}
    assert make(copy, folder) == 2
    assert files(copy) == before
    assert all(os.stat(copy / name).st_mtime_ns == time for name, time in times.items())
    assert not list(copy.glob("*/.staged-*"))


def test_a_tar_without_its_side_car_is_not_finished(folder, copy):
    before = files(copy)
    (copy / "train/depth-000000.json").unlink()
    (copy / "train/depth-000000.tar").write_bytes(b"half")
    os.truncate(copy / "train/text-000001.tar", 100)
    make(copy, folder)
    assert files(copy) == before


def test_columns_of_other_clips_are_made_again(folder, copy):
    path = copy / "train/text-000000.json"
    before = path.read_bytes()
    path.write_bytes(before.replace(json.loads(before)["clips_sha256"].encode(), b"0" * 64))
    make(copy, folder, columns="[text]")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("column_size=40", "column latents was begun in another way .size was 32, now 40; shape was "),
        ("column_mirror=false", "mirror was True, now False"),
        ("column_model=OTHER", r"weights was \w{12}, now \w{12}"),
    ],
)
def test_a_column_begun_in_another_way_is_refused(folder, copy, tmp_path, change, message):
    if "OTHER" in change:
        make_model(tmp_path / "other", seed=1)
        change = f"column_model={tmp_path / 'other'}"
    before = files(copy)
    with pytest.raises(UsageError, match=message) as error:
        make(copy, folder, change)
    assert "\n" not in str(error.value) and files(copy) == before


def test_a_column_of_two_makers_is_no_column(folder, copy):
    """Two slices given different models: whoever writes dataset.json notices."""
    path = copy / "train/text-000001.json"
    side_car = json.loads(path.read_text())
    side_car["made_by"]["weights"] = "0" * 64
    path.write_text(json.dumps(side_car))
    with pytest.raises(
        DataError, match="text-000001.json: made in another way .*weights was .*, now 000000000000"
    ):
        column_identities(copy)


def test_a_model_elsewhere_and_newer_tools_make_the_same_column(folder, copy, tmp_path):
    made = column_identities(copy)["latents"]
    other = {**made, "model": "elsewhere", "tools": {}, "shards": {}}
    assert differences(made, other) == []
    shutil.copytree(folder / "model", tmp_path / "moved")
    (copy / "train/text-000001.json").unlink()
    make(copy, folder, f"column_model={tmp_path / 'moved'}")
    assert column_identities(copy)["text"]["shards"]["train"] == 2


def test_without_mirroring_there_are_no_mirrored_arrays(folder, copy):
    for name in files(copy):
        (copy / name).unlink()
    make(copy, folder, "column_mirror=false", columns="[latents]")
    assert {path.name for path in copy.glob("*/*-000000.tar")} == {"clips-000000.tar", "latents-000000.tar"}
    assert not [name for name in members(copy / "train/latents-000000.tar") if "mirrored" in name]


def test_few_frames_are_in_the_nets_at_a_time(folder, copy, monkeypatch):
    for name in files(copy):
        (copy / name).unlink()
    seen = []
    original = nets.Nets._latents
    monkeypatch.setattr(nets.Nets, "_latents", lambda self, x: seen.append(len(x)) or original(self, x))
    monkeypatch.setattr(nets, "_IN_MEMORY", 100)  # through files, which change no byte
    make(copy, folder, columns="[latents]")
    assert max(seen) == 8 and sum(seen) == 4 * 24 * 2
    assert files(copy) == {name: sha for name, sha in files(folder / "dataset").items() if "latents" in name}


def test_a_clip_that_does_not_decode_is_named(folder, copy):
    for name in files(copy):
        (copy / name).unlink()
    tar = copy / "train/clips-000001.tar"
    data = bytearray(tar.read_bytes())
    with tarfile.open(tar) as file:
        entry = next(iter(file))
    data[entry.offset_data : entry.offset_data + entry.size] = bytes(entry.size)
    tar.write_bytes(data)
    with pytest.raises(DataError, match=f"clips-000001.tar: clip {entry.name.removesuffix('.mp4')}: "):
        make(copy, folder)
    assert sorted({Path(name).stem for name in files(copy)}) == [
        f"{column}-000000" for column in sorted(COLUMNS)
    ]
    assert not list(copy.glob("*/.staged-*"))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (["columns=[latnts]"], UsageError, "columns=.*out of range"),
        (["columns=[text]"], UsageError, "say by which model, column_model=EXPORT"),
        (["columns=[text]", "column_model=nowhere"], CheckpointError, "nowhere: no such folder"),
        (
            ["columns=[text]", "column_model=MODEL", "column_device=cuda:77"],
            SetupError,
            "column_device=cuda:77",
        ),
        (["column_size=4"], UsageError, "column_size=4"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_decoded(folder, settings, error, message):
    with pytest.raises(error, match=message):
        load_config([setting.replace("MODEL", str(folder / "model")) for setting in settings])


def test_a_size_that_the_autoencoder_cannot_take_is_named(folder, copy):
    with pytest.raises(UsageError, match="size=34: this model's autoencoder needs a multiple of 4 pixels"):
        make(copy, folder, "column_size=34")


def test_depth_survives_storing():
    rng = np.random.default_rng(0)
    raw = rng.gamma(2, 300, (5, 9, 7)).astype(np.float32)
    raw[1] *= 1e-6
    raw[2] = 5.0  # constant: scale 0
    raw[3, :, :] += 1e4
    values, ranges = quantise_depth(raw)
    error = np.abs(restore_depth(values, ranges) - raw).max(axis=(1, 2))
    spread = raw.max(axis=(1, 2)) - raw.min(axis=(1, 2))
    assert (error <= spread / 131000 + 1e-7 * raw.max(axis=(1, 2))).all()
    assert error[2] == 0
