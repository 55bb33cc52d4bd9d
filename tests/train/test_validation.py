"""Validation: always the same question, and no trace of having asked it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import load_file

from live2diff.model.build import load_model
from live2diff.runs import checkpoints, read_manifest
from live2diff.stream.engine import Stream
from live2diff.video import VideoReader
from tests.train.runs import run
from tests.train.shards import make_dataset

SETTINGS = [
    "validation=default", "validation.every=1", "validation.clips=2", "validation.timesteps=[300,700]",
    "validation.videos=0", "trainer.batch=1", "trainer.updates=1",
]  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=3, clips_per_shard=4, val=True)


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


def test_it_leaves_no_trace_in_the_training(dataset, tmp_path):
    """Also where the stream renders in between."""
    for name, more in (
        ("with", ["validation.videos=1", "validation.video_frames=9"]),
        ("without", ["validation.every=null"]),
    ):
        run(dataset, tmp_path / name, *SETTINGS, *more, "trainer.updates=2")
    one, other = (checkpoints(tmp_path / name)[-1] for name in ("with", "without"))
    first, second = (load_file(path / "weights.safetensors") for path in (one, other))
    assert first and all(torch.equal(first[name], second[name]) for name in second)
    states = [torch.load(path / "rank-0000.pt", weights_only=True)["torch"] for path in (one, other)]
    assert torch.equal(*states)
    assert len(rows(tmp_path / "with")) == 3 and len(rows(tmp_path / "without")) == 2


def test_the_value_depends_on_the_weights_alone(dataset, tmp_path):
    """Not on the batch, the run's seed or the crops of training; and it changes when they do."""
    shapes = {
        "one": [],
        "two": ["trainer.batch=2", "data.hflip=0", "data.caption_dropout=0", "data.workers=1"],
    }
    for name, more in shapes.items():
        run(dataset, tmp_path / name, *SETTINGS, *more)
    one, two = (rows(tmp_path / name) for name in shapes)
    assert [row["update"] for row in one] == ["0", "1"]
    assert one[0]["val_loss"] == two[0]["val_loss"] != one[1]["val_loss"]
    assert one[0]["loss"] == ""  # nothing was trained yet


def test_the_loss_is_that_of_the_weights_in_training(dataset, tmp_path):
    """Against a plain evaluation of the saved weights, also where a running mean is kept."""
    from tests.train.runs import FAST
    from train.module import Diffusion
    from train.settings import load_config
    from train.validation import find_validation

    run(dataset, tmp_path / "run", *SETTINGS, "trainer.ema=0.9")
    config = load_config([*FAST, f"data.path={dataset}", *SETTINGS])
    module = Diffusion(load_model(tmp_path / "run"), config["trainer"], config["optim"])
    clips = find_validation(config, module, first=True)
    assert clips is not None
    losses = []
    with torch.no_grad():
        for number in range(2):
            held = clips.encode(number, [300, 700], module)
            for timestep, noise in zip((300, 700), held.noise, strict=True):
                time = torch.tensor([timestep])
                noisy = module.objective.noisy(held.encoded.clean, noise[None], time)
                losses.append((module.predict(noisy, time, held.encoded.text) - noise[None]).abs().mean())
    measured = float(rows(tmp_path / "run")[-1]["val_loss"])
    assert measured == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_a_checkpoint_carries_the_loss_of_its_own_update_only(dataset, tmp_path):
    words = ["trainer.updates=3", "trainer.save_every=1", "trainer.keep=9", "validation.every=2"]
    run(dataset, tmp_path / "run", *SETTINGS, *words)
    found = {path.name: read_manifest(path).get("val_loss") for path in checkpoints(tmp_path / "run")}
    logged = {row["update"]: row["val_loss"] for row in rows(tmp_path / "run")}
    assert found["step-000001"] is None and logged["1"] == ""
    assert found["step-000002"] == float(logged["2"]) and found["step-000003"] == float(logged["3"])


def test_without_a_split_it_says_so_once(tmp_path, capsys):
    dataset = make_dataset(tmp_path, shards=1, clips_per_shard=2)
    assert run(dataset, tmp_path / "run", *SETTINGS, "trainer.updates=2") == 0
    assert capsys.readouterr().out.count("has no clips in its split val") == 1


def test_a_clip_that_cannot_be_read_is_replaced_by_the_next(dataset, tmp_path, capsys):
    import shutil

    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    tar = copy / "val/clips-000000.tar"
    data = bytearray(tar.read_bytes())
    start = data.index(b"ftyp")  # of the first clip
    data[start : start + 2000] = bytes(2000)
    tar.write_bytes(data)
    assert run(copy, tmp_path / "run", *SETTINGS, "validation.clips=1") == 0
    assert "left out of the validation: " in capsys.readouterr().err
    assert rows(tmp_path / "run")[0]["val_loss"]


def test_the_video_is_what_the_stream_makes_of_the_clip(dataset, tmp_path):
    words = ["validation.clips=0", "validation.videos=1", "trainer.depth=true"]
    run(dataset, tmp_path / "run", *SETTINGS, *words, "validation.every=9", "validation.video_frames=18")
    folders = sorted((tmp_path / "run/validation").iterdir())
    assert [path.name for path in folders] == ["step-000000", "step-000001"]
    assert len({tuple(sorted(path.name for path in folder.iterdir())) for folder in folders}) == 1
    (video,) = folders[-1].glob("*.mp4")
    with VideoReader(video) as reader:
        frames = list(reader)
        assert reader.fps == 8 and len(frames) == 18
    height, width = frames[0].shape[:2]
    side = 192  # 32 pixels, enlarged
    assert (height, width) == (24 + side, 3 * side + 2 * 8)
    # Input and output, one pixel of each block, against a stream of our own.
    clips = json.loads((dataset / "dataset.json").read_text())["splits"]["val"]["shards"]
    assert clips[0]["clips"] == 4
    shown = [frame[24:].astype(int) for frame in frames]
    output = [frame[3::6, 2 * (side + 8) + 3 :: 6][:32, :32] for frame in shown]
    model = load_model(tmp_path / "run")
    given = footage(dataset)
    stream = Stream(model, given.caption)
    made = [done for frame in given.frames for done in stream.push(frame)] + stream.flush()
    error = [abs(one - other.astype(int)).mean() for one, other in zip(output, made, strict=True)]
    assert max(error) < 12  # H.264 between them; another frame of noise would differ by 50
    for kind, tall in (("frames", 3 * (24 + side) + 2 * 8), ("xt", 24 + 11 * 18)):
        picture = cv2.imread(str(video.with_name(f"{video.stem}-{kind}.png")))
        assert picture is not None and picture.shape[0] == tall
    flickers = [row["flicker"] for row in rows(tmp_path / "run")]
    assert all(0 < float(value) < 0.5 for value in flickers)


def footage(dataset):
    from tests.train.shards import DATA
    from train.columns import Parts
    from train.shards import find_shards
    from train.validation_clips import ValidationClips

    data = {**DATA, "path": str(dataset), "split": "val"}
    return ValidationClips(data, find_shards(dataset, "val"), Parts(), 1).footage(0, 18)


def test_a_model_that_cannot_stream_has_no_video(dataset, tmp_path, capsys):
    words = ["validation.videos=1", "trainer.mask=bidirectional", "trainer.updates=2"]
    run(dataset, tmp_path / "run", *SETTINGS, *words)
    out = capsys.readouterr().out
    assert out.count("no validation video: a model trained with trainer.mask=bidirectional") == 1
    assert not (tmp_path / "run/validation").exists() and rows(tmp_path / "run")[-1]["val_loss"]
