"""A convolution as a matrix product gives what the library's gives, and is taken where it pays alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from live2diff.model.convolution import Conv3x3, as_the_library_does, install
from tests.model.tiny import make_unet


@pytest.fixture
def products(monkeypatch):
    """Counts the matrix products."""
    calls = []
    linear = F.linear
    monkeypatch.setattr(F, "linear", lambda *args: calls.append(1) or linear(*args))
    return calls


def pair(channels: int, bias: bool = True) -> tuple[nn.Conv2d, Conv3x3]:
    stock = nn.Conv2d(channels, 12, 3, padding=1, bias=bias).to(memory_format=torch.channels_last)
    return stock, Conv3x3.like(stock)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 4), (3, 7)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@torch.no_grad()
def test_a_product_equals_the_convolution(size, bias, layout, products):
    stock, own = pair(256, bias)
    x = torch.randn(2, 256, *size).contiguous(memory_format=layout)
    torch.testing.assert_close(own(x), stock(x), rtol=1e-5, atol=1e-5)
    assert products


@torch.no_grad()
def test_bfloat16_is_as_near_to_the_truth(products):
    stock, own = pair(256)
    x = torch.randn(2, 256, 4, 4)
    truth = stock(x)
    stock.bfloat16()
    own.bfloat16()
    assert products == []
    errors = [(conv(x.bfloat16()).float() - truth).abs().max() for conv in (stock, own)]
    assert products and errors[1] <= 1.5 * errors[0]


@torch.no_grad()
def test_many_pixels_other_layouts_and_gradients_stay_with_the_library(products):
    stock, own = pair(64)
    own(torch.randn(1, 64, 5, 5))  # 25 pixels, 64 channels
    with as_the_library_does():
        own(torch.randn(1, 64, 2, 2))
    with torch.enable_grad():
        own(torch.randn(1, 64, 2, 2)).sum().backward()
    assert stock.weight.grad is not None  # one tensor, not two
    Conv3x3.like(nn.Conv2d(64, 12, 3, padding=1))(torch.randn(1, 64, 2, 2))  # not channels last
    assert not products
    own(torch.randn(1, 64, 2, 2))
    assert products


def test_only_plain_convolutions_are_replaced():
    kinds = {
        "plain": nn.Conv2d(4, 4, 3, padding=1),
        "strided": nn.Conv2d(4, 4, 3, padding=1, stride=2),
        "pointwise": nn.Conv2d(4, 4, 1),
        "grouped": nn.Conv2d(4, 4, 3, padding=1, groups=2),
        "dilated": nn.Conv2d(4, 4, 3, padding=1, dilation=2),
        "circular": nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"),
    }
    model = nn.ModuleDict(kinds)
    before = {name: id(tensor) for name, tensor in model.named_parameters()}
    install(model)
    assert [name for name, layer in model.items() if isinstance(layer, Conv3x3)] == ["plain"]
    assert {name: id(tensor) for name, tensor in model.named_parameters()} == before


def test_the_unet_uses_it():
    blocks = [module for module in make_unet().modules() if type(module) is Conv3x3]
    assert len(blocks) > 20
