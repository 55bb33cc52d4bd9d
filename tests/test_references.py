"""Model references: paths, and hub ids in a local cache; never the network."""

from __future__ import annotations

import pytest

from live2diff.errors import CheckpointError
from live2diff.interop.catalogue import fetch_command
from live2diff.references import find, find_local, hub_parts


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A hub cache with one model, as `hf download` leaves it."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model = tmp_path / "hub/models--guoyww--animatediff"
    (model / "refs").mkdir(parents=True)
    (model / "refs/main").write_text("abc")
    snapshot = model / "snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "mm_sd_v15.ckpt").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return snapshot


def test_a_path(tmp_path, cache):
    (tmp_path / "models").mkdir()
    file = tmp_path / "models/mm.ckpt"
    file.touch()
    assert find(file, "k") == file
    assert find("models/mm.ckpt", "k").resolve() == file


def test_a_hub_id_and_a_file_in_one(cache):
    assert find("guoyww/animatediff", "k") == cache
    assert find("guoyww/animatediff/mm_sd_v15.ckpt", "k") == cache / "mm_sd_v15.ckpt"
    assert find_local("guoyww/animatediff/v3_sd15_mm.ckpt") is None
    assert find_local("guoyww/other") is None


@pytest.mark.parametrize(
    ("reference", "command"),
    [
        ("guoyww/animatediff/v3_sd15_mm.ckpt", "hf download guoyww/animatediff v3_sd15_mm.ckpt"),
        ("somebody/model", "hf download somebody/model"),
        ("here/v3_sd15_mm.ckpt", "hf download guoyww/animatediff v3_sd15_mm.ckpt --local-dir here"),
        ("here/deep/live2diff.ckpt", "hf download Leoxing/Live2Diff live2diff.ckpt --local-dir here/deep"),
        (
            "/abs/dpt_hybrid_384.pt",
            "curl --fail --location --create-dirs --output /abs/dpt_hybrid_384.pt https",
        ),
        (
            "madebyollin/taesd",
            "hf download madebyollin/taesd config.json diffusion_pytorch_model.safetensors",
        ),
    ],
)
def test_what_is_missing_comes_with_the_command_that_fetches_it(cache, tmp_path, reference, command):
    (tmp_path / "here").mkdir()
    with pytest.raises(CheckpointError) as error:
        find(reference, "model.unet.motion")
    assert str(error.value).startswith(
        f"model.unet.motion={reference}: is not on this machine; fetch it with: "
    )
    assert command in str(error.value)


@pytest.mark.parametrize(
    "reference", ["models/mine.ckpt", "/abs/mine.ckpt", "here/deep/mine.safetensors", "mine"]
)
def test_what_can_only_be_a_path_has_no_command(cache, tmp_path, reference):
    (tmp_path / "here").mkdir()
    with pytest.raises(CheckpointError, match="no such file or folder"):
        find(reference, "k")


@pytest.mark.parametrize(
    "reference", ["../a/b", "a/../b", "a/b/../../etc/passwd", "./a/b", "a//b", "a/b/", "~/a/b"]
)
def test_no_hub_id_leads_out_of_the_cache(reference):
    assert hub_parts(reference) is None


def test_commands_are_safe_to_paste():
    assert fetch_command("a folder; rm -rf ~/live2diff.ckpt") == (
        "hf download Leoxing/Live2Diff live2diff.ckpt --local-dir 'a folder; rm -rf ~'"
    )
