"""The weights that come with the package: whole, small, and read by the loaders of the real ones."""

from __future__ import annotations

import hashlib

import pytest
import torch
from omegaconf import OmegaConf

from live2diff import toy
from live2diff.config import compose
from live2diff.errors import CheckpointError
from live2diff.images import to_tensor
from live2diff.model.build import build
from live2diff.references import find, find_local
from live2diff.toy.weights import FOLDER
from live2diff.toy.words import WORDS


def toy_model(*overrides: str):
    config = compose("train", ["model=toy", "data.path=none", *overrides])
    return build(OmegaConf.to_container(config, resolve=True)["model"])  # pyright: ignore


def test_they_are_whole_and_below_8_mb() -> None:
    lines = (FOLDER / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = [path for path in FOLDER.rglob("*") if path.suffix in (".safetensors", ".json")]
    present = {path.relative_to(FOLDER).as_posix(): path for path in files}
    assert present.keys() <= sums.keys()
    for name, digest in sums.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name
    assert sum(p.stat().st_size for p in present.values() if p.suffix == ".safetensors") < 8_000_000


@pytest.mark.parametrize("look", ["cartoon", "drawing"])
def test_a_style_with_motion_is_a_model(look: str) -> None:
    model = toy_model(f"model.unet.pretrained=toy:{look}")
    other = toy_model("model.unet.motion=toy:live2diff.safetensors")
    assert model.settings.noise.prediction == "v_prediction"
    state, theirs = model.unet.state_dict(), other.unet.state_dict()
    assert torch.equal(state["conv_in.weight"], theirs["conv_in.weight"]) == (look == "cartoon")
    # Stage 2 has trained the branch; without it, it adds nothing.
    assert not model.unet.depth_branch.conv_out.weight.any() and other.unet.depth_branch.conv_out.weight.any()


def test_the_text_encoder_knows_the_world_s_words() -> None:
    text = toy_model().text
    assert all(len(text.tokenizer.tokenize(word)) == 1 for word in WORDS)
    longest = max(
        (toy.caption(toy.Scene.sample(seed), look) for seed in range(300) for look in toy.LOOKS), key=len
    )
    assert not text.is_too_long(longest)


def test_pictures_survive_the_autoencoder_and_depth_is_seen() -> None:
    model = toy_model()
    for look in toy.LOOKS:
        rgb, depth = toy.frames(toy.SPLITS["test"] + 1, [0.5, 1.5, 2.5], (64, 64), look)
        images = to_tensor(rgb)[None]
        error = (model.decode(model.encode(images)) - images).square().mean() / 4
        assert -10 * torch.log10(error) > 15, look
        maps = [model.estimate_depth(images).flatten(), torch.from_numpy(depth).flatten()]
        assert torch.corrcoef(torch.stack(maps))[0, 1] > 0.7, look


def test_names_that_lead_out_of_the_package_are_none() -> None:
    assert find_local("toy:cartoon") == FOLDER / "cartoon"
    for name in ("", "../looks.py", "/etc/passwd", "no_such_style", "cartoon/../../looks.py"):
        assert find_local(f"toy:{name}") is None
    with pytest.raises(CheckpointError, match="toy:no_such_style: is not on this machine"):
        find("toy:no_such_style", "model.unet.pretrained")
