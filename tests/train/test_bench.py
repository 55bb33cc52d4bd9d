"""`bench train` is fair: both loops compute the same loss from the same clips, noise and weights."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from live2diff.bench.models import stock_unet
from live2diff.cli import main
from tests.model.tiny import randomise
from tests.train.runs import FAST, module_and_clips, take
from tests.train.shards import make_dataset
from train import bench
from train.bench import Plain
from train.columns import Parts
from train.settings import load_config


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


def test_what_does_not_fit_is_told_and_the_rest_is_measured(tmp_path, monkeypatch):
    """As on a GPU that is too small without checkpointing; clock and counter are this CPU's."""
    dataset = make_dataset(tmp_path, shards=1, clips_per_shard=4)
    module, _ = module_and_clips(dataset, "data.frames=9", "trainer.precision=bf16-mixed")
    config = load_config([*FAST, f"data.path={dataset}", "data.frames=9"])
    plainly = bench._Loop.step

    def step(loop: bench._Loop) -> dict[str, float]:
        if not module.unet.is_gradient_checkpointing:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plainly(loop)

    monkeypatch.setattr(bench._Loop, "step", step)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 10**9)
    optimiser = module.configure_optimizers()
    found = bench.measure_memory(module, config, Parts(), optimiser, torch.device("cpu"))
    assert found["without checkpointing"] == {}
    assert found["with checkpointing"]["peak_memory_gb"] == 3.0 and found["with checkpointing"]["mfu"] > 0
    lines = bench.lines({"loops": {}, "ratios": {}, "matmul_gflops": {}, "step_gflop": 1.0, "memory": found})
    assert "batch 4, without checkpointing: it does not fit" in lines
    assert any(line.startswith("batch 4, with checkpointing: 3.0 GB, ") for line in lines)


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
