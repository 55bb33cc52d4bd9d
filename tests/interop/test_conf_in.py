"""Public files through the `model` configuration, as a user names them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from live2diff.config import compose
from live2diff.errors import CheckpointError, UsageError
from live2diff.model.build import build
from tests.interop import public
from tests.interop.public import animatediff, flow_conv_in, new_adapter, new_text, new_unet, new_vae, same


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What people own, in a narrow width."""
    folder = tmp_path_factory.mktemp("models")
    parts = new_unet(seed=1), new_vae(seed=2), new_text(seed=3)
    public.save_folder(folder / "sd15", *parts)
    save_file(public.single_file(*parts), folder / "sd15.safetensors")
    save_file(public.single_file(new_unet(seed=8)), folder / "dreambooth.safetensors")
    torch.save(animatediff(new_adapter(seed=4, length=32, middle=True)), folder / "mm_v2.ckpt")
    torch.save({**animatediff(new_adapter(seed=5)), **flow_conv_in()}, folder / "live2diff.ckpt")
    save_file(flow_conv_in(seed=6), folder / "depth.safetensors")
    return folder


def config(files, **changes: Any) -> dict[str, Any]:
    """conf/model/sd15.yaml with the narrow folder; `changes` by dotted key."""
    model: Any = OmegaConf.to_container(compose("train", ["data.path=none", "model=sd15"]).model)
    base = {f"{part}.pretrained": str(files / "sd15") for part in ("unet", "vae", "text")}
    base |= {"unet.motion": None, "depth.preset": "tiny", "depth.weights": None}
    base |= {"unet.config": public.UNET, "vae.config": public.VAE, "text.config": public.TEXT}
    for key, value in {**base, **changes}.items():
        table = model
        *path, last = key.split(".")
        for name in path:
            table = table[name]
        table[last] = value
    return model


def test_the_public_checkpoint_is_one_setting(files):
    """Live2Diff's motion modules and depth branch on a base: as official.py builds it."""
    model = build(config(files, **{"unet.motion": str(files / "live2diff.ckpt")}))
    branch = {key.replace("flow_conv_in", "depth_branch"): value for key, value in flow_conv_in().items()}
    expected = {**new_unet(seed=1).state_dict(), **new_adapter(seed=5).state_dict(), **branch}
    same(model.unet.state_dict(), expected)
    assert model.provenance["built_from"]["motion"] == str(files / "live2diff.ckpt")


def test_every_part_from_a_file_of_its_own(files):
    """A DreamBooth's UNet, the base's other parts, motion modules, and a depth branch alone."""
    base = str(files / "sd15.safetensors")
    model = build(
        config(
            files,
            **{
                "unet.pretrained": str(files / "dreambooth.safetensors"),
                "unet.motion": str(files / "mm_v2.ckpt"),
                "unet.depth_branch": str(files / "depth.safetensors"),
                "vae.pretrained": base,
                "text.pretrained": base,
                "text.tokenizer": str(files / "sd15"),
            },
        )
    )
    motion = new_adapter(seed=4, length=32, middle=True).state_dict()
    motion = {key: value for key, value in motion.items() if not key.startswith("mid_block.")}
    branch = flow_conv_in(seed=6)
    expected = {**new_unet(seed=8).state_dict(), **motion}
    expected |= {key.replace("flow_conv_in", "depth_branch"): value for key, value in branch.items()}
    same(model.unet.state_dict(), expected)
    same(model.vae.state_dict(), new_vae(seed=2).state_dict())
    same(model.text.model.state_dict(), new_text(seed=3).state_dict())
    assert model.settings.vae_scaling == 0.18215
    images = torch.rand(1, 3, 2, 16, 16) * 2 - 1
    assert model.encode(images).shape == (1, 4, 2, 2, 2) and model.text(["a"]).shape == (1, 77, 32)


def test_positions_for_32_frames_allow_a_window_of_32(files):
    changes = {"settings.window": 32, "settings.warmup": 8}
    model = build(config(files, **{"unet.motion": str(files / "mm_v2.ckpt"), **changes}))
    assert (model.unet.window, model.unet.config["motion_max_seq_length"]) == (32, 32)
    with pytest.raises(UsageError, match="window=32: the model has positional encodings for 24 frames"):
        build(config(files, **{"unet.motion": str(files / "live2diff.ckpt"), **changes}))


def test_same_seed_same_model(files):
    """What no file gives is drawn from the seed."""
    first, again, other = (build(config(files), seed=seed).unet.state_dict() for seed in (0, 0, 1))
    same(first, again)
    key = "up_blocks.1.motion_modules.0.proj_in.weight"
    assert not torch.equal(first[key], other[key])


def test_a_model_from_files_is_saved_and_loaded(files, tmp_path):
    from live2diff.model.video_model import VideoModel

    model = build(config(files, **{"unet.motion": str(files / "mm_v2.ckpt")}))
    model.save(tmp_path / "model")
    again = VideoModel.load(tmp_path / "model")
    same(again.unet.state_dict(), model.unet.state_dict())
    same(again.text.model.state_dict(), model.text.model.state_dict())
    same(again.vae.state_dict(), model.vae.state_dict())


def lora(folder, seed=0):
    """A kohya file for one layer of the UNet."""
    generator = torch.Generator().manual_seed(seed)
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    state = {
        f"{name}.lora_down.weight": torch.randn(2, 32, generator=generator),
        f"{name}.lora_up.weight": torch.randn(32, 2, generator=generator),
        f"{name}.alpha": torch.tensor(1.0),
    }
    save_file(state, folder / "style.safetensors")
    return state[f"{name}.lora_up.weight"] @ state[f"{name}.lora_down.weight"] / 2


def test_loras_are_fused_when_the_model_is_built(files, tmp_path):
    change = lora(tmp_path)
    path = tmp_path / "style.safetensors"
    plain = build(config(files)).unet.state_dict()
    model = build(config(files, loras=[{"path": str(path), "scale": 0.5}]))
    key = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
    torch.testing.assert_close(model.unet.state_dict()[key], plain[key] + 0.5 * change)
    assert {
        name for name, value in model.unet.state_dict().items() if not torch.equal(value, plain[name])
    } == {key}
    (note,) = model.provenance["loras"]
    assert (note["file"], note["scale"]) == ("style.safetensors", 0.5)


@pytest.mark.parametrize("entry", ["style.safetensors", {"scale": 1.0}, {"path": "/", "scale": "b"}])
def test_a_lora_entry_that_says_too_little(files, entry):
    with pytest.raises(UsageError, match=r"model.loras\[0\]=.*expected {path: FILE, scale: NUMBER}"):
        build(config(files, loras=[entry]))


def test_a_lora_that_is_missing(files):
    with pytest.raises(
        CheckpointError, match=r"model.loras\[0\].path=none.safetensors: is not on this machine"
    ):
        build(config(files, loras=[{"path": "none.safetensors"}]))
