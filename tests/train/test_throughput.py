"""What the figures beside the loss mean: waiting, and counted operations."""

from __future__ import annotations

import time

import pytest
import torch
from torch.utils.data import IterableDataset

from live2diff.model.build import build
from tests.train.runs import FAST
from train.flops import matmul_rate, training_flops
from train.module import Diffusion
from train.settings import load_config
from train.throughput import TimedLoader

SHAPE = (4, 16, 8, 8)


class Slow(IterableDataset):
    def __iter__(self):
        for number in range(3):
            time.sleep(0.05)
            yield number


def test_only_the_time_of_waiting_is_counted():
    loader = TimedLoader(Slow(), batch_size=1)
    for _ in loader:
        time.sleep(0.2)
    assert 0.15 <= loader.waited < 0.6  # the loop itself slept for 0.6 s


def module(*words: str) -> Diffusion:
    config = load_config([*FAST, "data.path=none", *words])
    return Diffusion(build(config["model"]), config["trainer"], config["optim"])


def test_a_step_costs_three_forward_passes_when_all_is_trained():
    """Each product of a forward pass has two in the backward pass, but at the very first layers."""
    whole = module("trainer.trainable=[all]")
    step = training_flops(whole, SHAPE)
    whole.unet.requires_grad_(False)
    whole.unet.conv_out.bias.requires_grad_(True)  # its gradient is a sum, no product
    forward = training_flops(whole, SHAPE)
    assert step == pytest.approx(3 * forward, rel=0.03)
    assert forward < training_flops(module(), SHAPE) < step  # frozen weights need no gradient of their own


def test_counting_leaves_the_model_alone():
    """Also with checkpointing, whose second forward pass is no use and is not counted."""
    plain, checkpointed = module(), module("trainer.gradient_checkpointing=true")
    before = {name: value.clone() for name, value in checkpointed.unet.state_dict().items()}
    assert training_flops(plain, SHAPE) == training_flops(checkpointed, SHAPE)
    assert checkpointed.unet.is_gradient_checkpointing
    assert all(parameter.grad is None for parameter in checkpointed.unet.parameters())
    assert all(torch.equal(value, before[name]) for name, value in checkpointed.unet.state_dict().items())


def test_the_matrix_product_draws_nothing_from_the_run():
    state = torch.get_rng_state()
    assert matmul_rate(torch.device("cpu"), "32-true") > 0
    assert torch.equal(state, torch.get_rng_state())
