"""LoRA into an export: the folder streams as the model with the adapter does, and says what is in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from live2diff.errors import CheckpointError, UsageError
from live2diff.interop.lora import add_lora, lora_names, merge_into_export, merge_loras, parse_lora
from live2diff.interop.textual_inversion import add_embedding
from live2diff.model.folder import sha256_of
from live2diff.model.video_model import VideoModel
from tests.interop.lora import files
from tests.interop.lora.models import make_model, predict, weights


def base_model() -> VideoModel:
    """Bidirectional: no certificate, which would take longer than all the rest."""
    model = make_model()
    model.settings = replace(model.settings, mask="bidirectional")
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("merge")
    model = base_model()
    model.save(folder / "base")
    files.save(files.kohya(files.random_pairs(model, files.ATTENTION)), folder / "style.safetensors")
    motion = files.unscaled(files.random_pairs(model, files.MOTION))
    files.save(files.animatediff(motion), folder / "zoom.safetensors")
    files.save({"<cat>": torch.randn(2, 32)}, folder / "learned_embeds.safetensors")
    return folder


def test_merged_export_equals_the_adapters(folder, tmp_path):
    out = tmp_path / "styled"
    loras = [(folder / "style.safetensors", 0.8), (folder / "zoom.safetensors", -0.5)]
    merge_into_export(folder / "base", loras, out, embeddings=[folder / "learned_embeds.safetensors"])
    merged = VideoModel.load(out)
    expected = base_model()
    for path, scale in loras:
        add_lora(expected, path, scale)
    add_embedding(expected.text, folder / "learned_embeds.safetensors")
    for prompt in ("a cat", "a <cat>, please"):
        assert (predict(merged, prompt=prompt) - predict(expected, prompt=prompt)).abs().max() < 1e-5
    assert set(weights(merged)) == set(weights(make_model()))
    assert merged.provenance["loras"] == [
        {"file": path.name, "scale": scale, "sha256": sha256_of(path)} for path, scale in loras
    ]
    note = merged.provenance["embeddings"][0]
    assert (note["file"], note["tokens"]) == ("learned_embeds.safetensors", ["<cat>"])


def test_an_export_keeps_its_precision(folder, tmp_path):
    half = base_model()
    half.to("cpu", torch.float16).save(tmp_path / "half")
    merge_into_export(tmp_path / "half", [(folder / "style.safetensors", 1.0)], tmp_path / "out")
    merged = VideoModel.load(tmp_path / "out", dtype=None)
    assert merged.unet.dtype == merged.text.model.dtype == torch.float16


def test_nothing_is_written_and_nothing_changes_unless_all_fit(folder, tmp_path):
    wide = files.random_pairs(make_model(text_width=64), files.ATTENTION)
    files.save(files.kohya(wide), tmp_path / "wide.safetensors")
    loras = [(folder / "style.safetensors", 1.0), (tmp_path / "wide.safetensors", 1.0)]
    with pytest.raises(CheckpointError, match="wide.safetensors: is no LoRA for this model"):
        merge_into_export(folder / "base", loras, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    model = make_model()
    before = weights(model)
    with pytest.raises(CheckpointError):
        merge_loras(model, loras)
    assert not lora_names(model) and "loras" not in model.provenance
    assert all(torch.equal(before[key], value) for key, value in weights(model).items())


def test_existing_folders_are_not_replaced_unasked(folder, tmp_path):
    loras = [(folder / "style.safetensors", 1.0)]
    (tmp_path / "notes").mkdir()
    for out, overwrite, words in (
        (folder / "base", False, "exists already"),
        (tmp_path / "notes", True, "not an export"),
    ):
        with pytest.raises(UsageError, match=words):
            merge_into_export(folder / "base", loras, out, overwrite=overwrite)


def test_a_model_with_adapters_is_not_merged_into(folder):
    model = make_model()
    add_lora(model, folder / "zoom.safetensors")
    with pytest.raises(UsageError, match="remove or bake them"):
        merge_loras(model, [(folder / "style.safetensors", 1.0)])


@pytest.mark.parametrize(
    ("argument", "path", "scale"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:0.8", "a.safetensors", 0.8),
        ("a.safetensors:-1", "a.safetensors", -1.0),
        ("dir/v1.5:a.safetensors", "dir/v1.5:a.safetensors", 1.0),
        ("dir/v1.5:a.safetensors:1e-1", "dir/v1.5:a.safetensors", 0.1),
        ("C:\\loras\\a.safetensors", "C:\\loras\\a.safetensors", 1.0),
        ("C:\\loras\\a.safetensors:.5", "C:\\loras\\a.safetensors", 0.5),
        ("a.safetensors:half", "a.safetensors:half", 1.0),  # the file that is missing will be named whole
    ],
)
def test_paths_with_scales(argument, path, scale):
    assert parse_lora(argument) == (Path(path), scale)


def test_an_existing_path_is_a_path(tmp_path):
    (tmp_path / "take:2").write_bytes(b"")
    assert parse_lora(f"{tmp_path}/take:2") == (tmp_path / "take:2", 1.0)
    assert parse_lora(f"{tmp_path}/take:2:0.5") == (tmp_path / "take:2", 0.5)
    assert parse_lora(f"{tmp_path}/take:3") == (tmp_path / "take", 3.0)


@pytest.mark.parametrize("argument", ["", ":0.5", "a.safetensors:nan", "a.safetensors:inf"])
def test_scales_that_are_none(argument):
    with pytest.raises(UsageError, match="expected PATH or PATH:SCALE"):
        parse_lora(argument)
