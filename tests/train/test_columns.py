"""Columns instead of nets: the same training batch, and only columns that fit the model in training."""

from __future__ import annotations

import itertools
import json
import shutil

import pytest
import torch

from data_prep.columns import column_identities
from live2diff.errors import DataError, UsageError
from live2diff.model.build import build as build_model
from live2diff.model.video_model import VideoModel
from tests.model.tiny import randomise
from tests.train.columns import MODEL, build_columns, make_model
from train.columns import Parts, choose_parts
from train.data import Clips, collate
from train.module import Diffusion
from train.run import train
from train.settings import load_config

EVERYTHING = {"latents": (8, 8, 8), "depth": (32, 32), "text": (77, 32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`dataset` with every column, `model` beside it. Clips have 24 frames of 48 x 40 pixels."""
    folder = tmp_path_factory.mktemp("columns")
    build_columns(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder) -> VideoModel:
    model = VideoModel.load(folder / "model")
    randomise(model.unet)
    return model


def settings(folder, *overrides):
    data = ["size=32", "frames=9", "stride=2", "hflip=0.5", "caption_dropout=0.5"]
    words = ["experiment=tiny", "trainer.depth=true", f"data.path={folder / 'dataset'}"]
    return load_config([*words, *(f"data.{word}" for word in data), *overrides])


def batches(config, parts, count, size=2):
    clips = Clips(config["data"], seed=3, batch=size, batches=99, parts=parts)
    samples = iter(clips)
    return [collate(list(itertools.islice(samples, size))) for _ in range(count)]


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float = 1e-3) -> None:
    """Equal but for half precision, relative to the size of the values."""
    assert one.shape == other.shape and one.dtype == other.dtype
    assert (one - other).abs().max() < tolerance * one.abs().max()


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["data.stride=1", "data.frames=16"],
        ["data.columns=[latents]"],
        ["data.columns=[text,depth]"],
        ["trainer.depth=false"],
    ],
)
def test_columns_give_the_batch_that_the_nets_give(folder, model, overrides):
    """Latents, depth condition, text states and loss: with flips, dropped captions, strides and any start."""
    config = settings(folder, *overrides)
    module = Diffusion(model, config["trainer"], config["optim"])
    parts = choose_parts(config["data"], model, config["trainer"]["depth"])
    assert parts.columns
    mirrored, dropped, starts = set(), set(), set()
    pairs = zip(batches(config, Parts(), 4), batches(config, parts, 4), strict=True)
    for online, stored in pairs:
        for name in ("key", "caption", "seed"):
            assert online[name] == stored[name]
        assert ("video" in stored) == parts.frames
        shape = module.encode.latent_shape(online)
        assert module.encode.latent_shape(stored) == shape
        noise = torch.randn(2, *shape)
        one, other = module.encode(online, noise), module.encode(stored, noise)
        close(one.clean, other.clean)
        close(one.text, other.text)
        if config["trainer"]["depth"]:
            close(one.depth, other.depth)
        else:
            assert one.depth is other.depth is None
        with torch.no_grad():
            close(module.loss(online), module.loss(stored))
        dropped |= {caption == "" for caption in online["caption"]}
        mirrored |= {bool(draw[0]) for draw in draws(config, online)}
        starts |= {draw[1] for draw in draws(config, online)}
    assert dropped == mirrored == {False, True} and len(starts) > 3  # all of it was met


def draws(config, batch):
    """Whether each sample is mirrored, and where it starts: as drawn, by the sample's own seed."""
    from train.noise import generator

    for seed in batch["seed"]:
        rng = generator(seed)
        start = int(rng.integers(24 - (config["data"]["frames"] - 1) * config["data"]["stride"]))
        yield rng.random() < config["data"]["hflip"], start


def test_other_latents_would_be_noticed(folder, model):
    """The comparison above is not blind: the next frame, or the other side, is farther than its tolerance."""
    config = settings(folder)
    module = Diffusion(model, config["trainer"], config["optim"])
    (batch,) = batches(config, choose_parts(config["data"], model, True), 1)
    noise = torch.randn(2, *module.encode.latent_shape(batch))
    right = module.encode(batch, noise)
    for change in (lambda x: x.roll(1, 1), lambda x: x.flip(-1)):
        wrong = module.encode(
            {**batch, **{name: change(batch[name]) for name in ("latents", "depth")}}, noise
        )
        for one, other in ((right.clean, wrong.clean), (right.depth, wrong.depth)):
            assert (one - other).abs().max() > 0.05 * one.abs().max()


def test_the_posterior_is_still_sampled(folder, model):
    config = settings(folder)
    module = Diffusion(model, config["trainer"], config["optim"])
    (batch,) = batches(config, choose_parts(config["data"], model, True), 1)
    shape = module.encode.latent_shape(batch)
    none, some = (module.encode(batch, scale * torch.randn(2, *shape)).clean for scale in (0, 1))
    std = batch["latents"].float().transpose(1, 2).chunk(2, dim=1)[1] * model.vae.config.scaling_factor
    assert torch.allclose((some - none).std(), std.square().mean().sqrt(), rtol=0.1)


def test_frames_are_not_decoded_when_columns_say_all(folder, model, monkeypatch):
    config = settings(folder)
    parts = choose_parts(config["data"], model, True)
    assert parts == Parts(frames=False, columns=EVERYTHING)
    monkeypatch.setattr("train.readers.read_pyav", lambda *_: pytest.fail("frames were decoded"))
    batches(config, parts, 2)
    without = choose_parts(settings(folder, "data.columns=[latents]")["data"], model, True)
    assert without.frames  # depth is computed from them
    assert not choose_parts(settings(folder, "data.columns=[latents]")["data"], model, False).frames
    assert choose_parts(settings(folder, "data.columns=none")["data"], model, True) == Parts()


def test_depth_is_read_only_by_who_needs_it(folder, model):
    assert "depth" not in choose_parts(settings(folder)["data"], model, False).columns


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.size=40", r"column latents of \S+dataset was made for something else .*was 32, now 40"),
        ("data.path=BARE data.columns=[text]", "has no column text; add it with `live2diff data build`"),
        ("data.path=PLAIN", "column latents of .* has no mirrored arrays; set data.hflip=0, or "),
        ("data.path=PART", "has column depth for 1 of 2 shards; run the same"),
    ],
)
def test_columns_that_do_not_fit_are_refused(folder, model, tmp_path, override, message):
    def changed(name, change):
        if name in override:
            dataset = shutil.copytree(folder / "dataset", tmp_path / name)
            manifest = json.loads((dataset / "dataset.json").read_text())
            change(manifest["columns"])
            (dataset / "dataset.json").write_text(json.dumps(manifest))

    changed("BARE", lambda columns: columns.clear())
    changed("PLAIN", lambda columns: columns["latents"].update(mirror=False))
    changed("PART", lambda columns: columns["depth"]["shards"].update(train=1))
    words = [word.replace("path=", f"path={tmp_path}/") for word in override.split()]
    with pytest.raises(UsageError, match=message) as error:
        choose_parts(settings(folder, *words)["data"], model, True)
    assert "\n" not in str(error.value)
    if "PLAIN" in override:
        assert choose_parts(settings(folder, *words, "data.hflip=0")["data"], model, True).columns
    if "BARE" in override:
        assert choose_parts(settings(folder, words[0])["data"], model, True) == Parts()  # auto: none is there


@pytest.mark.parametrize("part", ["vae", "depth", "text"])
def test_columns_of_other_weights_are_refused(folder, part, tmp_path):
    model = make_model(tmp_path / "other", seed=0)
    choose_parts(settings(folder)["data"], model, True)  # the same weights, made anew
    with torch.no_grad():
        next(getattr(model, part).parameters()).flatten()[0] += 1e-3
    column = {"vae": "latents"}.get(part, part)
    with pytest.raises(UsageError, match=rf"column {column} .*weights was \w{{12}}, now \w{{12}}"):
        choose_parts(settings(folder)["data"], model, True)
    assert choose_parts(settings(folder, "data.columns=none")["data"], model, True) == Parts()


def test_states_of_other_layers_are_refused(folder):
    model = build_model(load_config([*MODEL, "model.settings.text.clip_skip=1"])["model"], 0)
    with pytest.raises(UsageError, match="column text .*clip_skip was 0, now 1"):
        choose_parts(settings(folder, "data.columns=[text]")["data"], model, False)


def test_a_damaged_description_is_named(folder, model, tmp_path):
    dataset = shutil.copytree(folder / "dataset", tmp_path / "dataset")
    manifest = json.loads((dataset / "dataset.json").read_text())
    del manifest["columns"]["text"]["shape"]
    (dataset / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="dataset.json: columns.text cannot be read"):
        choose_parts(settings(folder, f"data.path={dataset}")["data"], model, True)


def test_a_damaged_array_is_left_out_like_a_damaged_clip(folder, model, tmp_path, capfd):
    dataset = shutil.copytree(folder / "dataset", tmp_path / "dataset")
    tar = dataset / "train/latents-000000.tar"
    data = bytearray(tar.read_bytes())
    at = data.index(b"\x93NUMPY")
    data[at : at + 6] = b"damage"
    tar.write_bytes(data)
    config = settings(folder, f"data.path={dataset}", "data.hflip=0")
    keys = {
        key for batch in batches(config, choose_parts(config["data"], model, True), 3) for key in batch["key"]
    }
    assert len(keys) == 3
    assert "left out" in (words := capfd.readouterr().err) and "its .latents.npy is no array" in words


def test_a_run_trains_from_columns(folder, tmp_path, monkeypatch):
    """The whole way: no net but the UNet runs, and the VAE for depth."""
    monkeypatch.setattr(VideoModel, "posterior", lambda *_: pytest.fail("the VAE was asked for latents"))
    monkeypatch.setattr(VideoModel, "estimate_depth", lambda *_: pytest.fail("the depth net ran"))
    assert set(column_identities(folder / "dataset")) == set(EVERYTHING)
    words = [
        "experiment=tiny",
        f"data.path={folder / 'dataset'}",
        f"run_dir={tmp_path / 'run'}",
        "data.size=32",
    ]
    model = ["model=saved", f"model.saved={folder / 'model'}", "trainer.depth=true", "data.caption_dropout=0"]
    assert train([*words, *model, "trainer.updates=1"]) == 0
