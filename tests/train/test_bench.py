"""`bench train` is fair: both loops compute the same loss from the same clips, noise and weights."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from live2diff.bench.models import stock_unet
from live2diff.cli import main
from tests.model.tiny import randomise
from tests.train.runs import module_and_clips, take
from tests.train.shards import make_dataset
from train.bench import Plain


class PerFrame(nn.Module):
    """The group norm of diffusers' motion modules, taken per frame as ours is."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)).transpose(1, 2)


@pytest.mark.parametrize(("kind", "frames"), [("l1", 9), ("mse", 1)])
def test_both_losses_are_equal(tmp_path, kind, frames):
    dataset = make_dataset(tmp_path, shards=1, clips_per_shard=2)
    words = [f"trainer.loss={kind}", "trainer.mask=bidirectional", f"data.frames={frames}"]
    module, clips = module_and_clips(dataset, *words)
    randomise(module.unet, 0)
    stock = stock_unet(module.unet)
    for name, parameter in module.unet.named_parameters():
        if name in dict(stock.named_parameters()):
            assert stock.get_parameter(name) is parameter, name
    assert {n for n, _ in module.unet.named_parameters() if "depth" not in n} == {
        n for n, _ in stock.named_parameters()
    }
    plain, batch = Plain(module.model, stock, kind), take(clips, 2)
    with torch.no_grad():
        if frames > 1:  # the one thing in which the models differ on purpose
            assert not torch.allclose(plain.loss(batch), module.loss(batch), rtol=1e-5)
            for block in [*stock.down_blocks, *stock.up_blocks]:
                for motion in block.motion_modules:
                    motion.norm = PerFrame(motion.norm)
        assert torch.allclose(plain.loss(batch), module.loss(batch), rtol=1e-5)


def test_both_train_the_same_parameters(tmp_path):
    """What is frozen stays frozen: a plain loop that trained all weights would be an easy rival."""
    dataset = make_dataset(tmp_path, shards=1, clips_per_shard=1)
    module, clips = module_and_clips(dataset, "data.frames=9")
    wanted = {name for name, _ in module.unet.named_parameters() if "motion_modules" in name}
    plain, batch = Plain(module.model, stock_unet(module.unet), "l1"), take(clips, 1)
    for loop in (plain, module):
        loop.loss(batch).backward()
        reached = {name for name, parameter in module.unet.named_parameters() if parameter.grad is not None}
        assert reached == wanted
        module.unet.zero_grad()


@pytest.mark.slow
def test_the_command_measures_both(tmp_path, capsys):
    figures = tmp_path / "figures.json"
    words = ["bench", "train", "--size", "32", "--frames", "9", "--steps", "1", "--device", "cpu"]
    assert main([*words, "--json", str(figures)]) == 0
    result = json.loads(figures.read_text())
    assert set(result["loops"]) == {
        f"{who} {how}" for who in ("plain", "ours") for how in ("32-true", "bf16-mixed")
    }
    for name, taken in result["loops"].items():
        assert taken["wall"] == pytest.approx(sum(taken["phases"].values()), rel=0.05), name
    assert "plain 32-true" in capsys.readouterr().out and result["what"]["frames"] == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "100"], "--size 100: expected a multiple of 32"),
        (["--frames", "8"], "--frames 8: expected 9 to 24"),
        (["--steps", "0"], "--steps 0: expected 1 or more"),
        (["--json", "/none/here/f.json"], "no such folder"),
    ],
)
def test_wrong_words(words, message, capsys):
    assert main(["bench", "train", *words]) == 2
    assert message in capsys.readouterr().err
