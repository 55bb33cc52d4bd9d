"""The README's commands and Python, run as written, on a small model and small videos."""

from __future__ import annotations

import re
import shlex
import subprocess

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from live2diff import toy
from live2diff.cli import main
from live2diff.model.text import character_tokenizer
from live2diff.video import VideoReader
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()

# What makes the recipe small enough for a test; everything else is as the README and conf/ say.
SMALL = [
    "trainer.updates=1",
    "trainer.batch=1",
    "trainer.accumulate=1",
    "trainer.effective_batch=null",
    "trainer.devices=1",
    "trainer.precision=32-true",
    "data.size=64",
    "data.workers=0",
]
STAGE1 = [
    "model.unet.pretrained=models/sd15",
    "model.unet.motion=models/motion.ckpt",
    "model.vae.pretrained=models/sd15",
    "model.text.pretrained=models/sd15",
    "model.depth.preset=tiny",
    "model.depth.weights=null",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def commands(first_word: str) -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    lines += re.findall(r"^    (make \w+) ", README, flags=re.MULTILINE)
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line and line[0] == first_word]


def small_sd15(folder):
    """Stable Diffusion 1.5 in diffusers' layout, a tenth as wide, and AnimateDiff v2 modules for it."""
    torch.manual_seed(0)
    widths = (32, 64, 64, 64)
    unet = UNet2DConditionModel(
        block_out_channels=widths, cross_attention_dim=32, norm_num_groups=8, attention_head_dim=8
    )
    unet.save_pretrained(folder / "sd15/unet")
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=8,
        scaling_factor=0.18215,
    ).save_pretrained(folder / "sd15/vae")
    tokenizer = character_tokenizer()
    tokenizer.save_pretrained(folder / "sd15/tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
    )
    CLIPTextModel(config).save_pretrained(folder / "sd15/text_encoder")
    torch.save(animatediff_modules(widths), folder / "motion.ckpt")


def animatediff_modules(widths):
    state = {}
    layers = [("down_blocks", i, 2, c) for i, c in enumerate(widths)]
    layers += [("up_blocks", i, 3, c) for i, c in enumerate(reversed(widths))]
    layers += [("mid_block", None, 1, widths[-1])]
    for block, i, count, c in layers:
        for j in range(count):
            at = f"{block}{'' if i is None else f'.{i}'}.motion_modules.{j}.temporal_transformer."
            inner = at + "transformer_blocks.0."
            shapes = {at + "norm": (c,), at + "proj_in": (c, c), at + "proj_out": (c, c)}
            shapes |= {inner + f"norms.{k}": (c,) for k in (0, 1)} | {inner + "ff_norm": (c,)}
            shapes |= {inner + "ff.net.0.proj": (8 * c, c), inner + "ff.net.2": (c, 4 * c)}
            for name, shape in shapes.items():
                state[f"module.{name}.weight"] = 0.02 * torch.randn(shape)
                state[f"module.{name}.bias"] = torch.zeros(shape[0])
            for k in (0, 1):
                attention = f"module.{inner}attention_blocks.{k}."
                for name in ("to_q", "to_k", "to_v", "to_out.0"):
                    state[f"{attention}{name}.weight"] = 0.02 * torch.randn(c, c)
                state[f"{attention}to_out.0.bias"] = torch.zeros(c)
                state[f"{attention}pos_encoder.pe"] = torch.zeros(1, 32, c)
    return {"state_dict": state}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with what the README's user has: videos, a clip, models."""
    monkeypatch.chdir(tmp_path)
    toy.write_videos(tmp_path / "videos", 4, seconds=10, fps=8, size=(128, 128), depth=False)
    toy.write_videos(tmp_path, 1, seconds=1.5, fps=8, size=(64, 64), look="photo", depth=False)
    (tmp_path / "toy_000000.mp4").rename(tmp_path / "clip.mp4")
    small_sd15(tmp_path / "models")
    return tmp_path


def test_the_real_recipe(world):
    small = {"stage1_mask": [*SMALL, *STAGE1], "stage2_depth": SMALL}
    done = []
    for line in commands("live2diff"):
        extra = small[line[2].partition("=")[2]] if line[1] == "train" else []
        if line[1] == "stream":  # 512 x 512 through an untrained model would only take time
            line[line.index("--size") + 1] = "64x64"
        if line[1:3] == ["data", "build"]:
            extra = ["size=64", "val_fraction=0"]
        assert main([*line[1:], *extra]) == 0, line
        done.append(line[1])
    assert done == ["data", "data", "train", "train", "export", "stream"]
    with VideoReader(world / "out.mp4") as video:
        assert len(list(video)) == 12
    python(world)


def python(world):
    """The README's Python, after its commands have made the export it names."""
    (block,) = blocks("python")
    shown = []
    with VideoReader(world / "clip.mp4") as video:
        frames = list(video)
    code = block.replace('.to("cuda")', "").replace("size=(512, 512)", "size=(64, 64)")
    assert code != block
    exec(code, {"frames": frames, "show": shown.append})
    assert len(shown) == 12 and all(frame.dtype == np.uint8 for frame in shown)


@pytest.mark.parametrize("line", commands("make"), ids=" ".join)
def test_make_targets_exist(line):
    """What each would run is printed, not run: the demo has its own drill, `make test-slow`."""
    subprocess.run([*line, "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.slow
def test_the_demo_and_real_videos_through_it(shared, tmp_path):
    """`make demo`, then `make demo-video` on two real clips: as many frames out as in, at the same rate."""
    make = ["make", "-C", str(ROOT), f"OUT={tmp_path}/demo"]
    subprocess.run([*make, "demo"], check=True)
    with VideoReader(tmp_path / "demo/stream.mp4") as video:
        assert len(list(video)) == 48
    assert (tmp_path / "demo/side_by_side.png").is_file()
    for name, frames in (("people_woman_running_512.mp4", 120), ("animal_wolf_512.mp4", 40)):
        subprocess.run([*make, "demo-video", f"VIDEO={shared / 'data/videos' / name}"], check=True)
        with VideoReader(tmp_path / "demo/your-video.mp4") as video:
            assert (len(list(video)), video.fps) == (frames, 20)
