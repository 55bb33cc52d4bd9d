"""MiDaS v2.1 small against a reference put together by hand from the published names, on timm's stages."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F

from live2diff.depth import MidasSmall, load_depth, load_midas, new_depth
from live2diff.errors import CheckpointError, UsageError

# timm's names -> the file's.
PLACES = {
    "conv_stem": "layer1.0",
    "bn1": "layer1.1",
    "blocks.0": "layer1.3",
    "blocks.1": "layer1.4",
    "blocks.2": "layer2.0",
    "blocks.3": "layer3.0",
    "blocks.4": "layer3.1",
    "blocks.5": "layer4.0",
    "blocks.6": "layer4.1",
}
SCRATCH = {
    **{
        f"layer{i}_rn.weight": (width, channels, 3, 3)
        for i, width, channels in ((1, 64, 32), (2, 128, 48), (3, 256, 136), (4, 512, 384))
    },
    **{
        f"refinenet{i}.resConfUnit{unit}.conv{conv}.{kind}": (width, width, 3, 3)[
            : 4 if kind == "weight" else 1
        ]
        for i, width in ((1, 64), (2, 128), (3, 256), (4, 512))
        for unit in (1, 2)
        for conv in (1, 2)
        for kind in ("weight", "bias")
    },
    **{
        f"refinenet{i}.out_conv.{kind}": (out, width, 1, 1)[: 4 if kind == "weight" else 1]
        for i, width, out in ((1, 64, 64), (2, 128, 64), (3, 256, 128), (4, 512, 256))
        for kind in ("weight", "bias")
    },
    "output_conv.0.weight": (32, 64, 3, 3),
    "output_conv.0.bias": (32,),
    "output_conv.2.weight": (32, 32, 3, 3),
    "output_conv.2.bias": (32,),
    "output_conv.4.weight": (1, 32, 1, 1),
    "output_conv.4.bias": (1,),
}


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = timm.create_model("tf_efficientnet_lite3", pretrained=False).eval()
    for name, tensor in net.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor.normal_(std=0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    return net


@pytest.fixture(scope="module")
def weights(net):
    generator = torch.Generator().manual_seed(1)
    state = {}
    for name, tensor in net.state_dict().items():
        for theirs, place in PLACES.items():
            if name.startswith(f"{theirs}."):
                state[f"pretrained.{place}{name.removeprefix(theirs)}"] = tensor
    for name, shape in SCRATCH.items():
        fan_in = torch.Size(shape[1:]).numel() if len(shape) > 1 else 100
        state[f"scratch.{name}"] = torch.randn(shape, generator=generator) / fan_in**0.5
    state["scratch.output_conv.4.bias"].fill_(3.0)  # so that the last ReLU passes
    return state


@pytest.fixture(scope="module")
def file(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("midas") / "midas_v21_small_256.pt"
    torch.save(weights, path)
    return path


def reference(net, weights, images: torch.Tensor) -> torch.Tensor:
    """MiDaS's forward pass for images (N, 3, 256, 256) in [-1, 1]."""
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    x, maps = net.bn1(net.conv_stem(((images + 1) / 2 - mean) / std)), []
    for i, block in enumerate(net.blocks):
        x = block(x)
        if i in (1, 2, 4, 6):
            maps.append(x)

    def conv(x, name):
        weight = weights[f"scratch.{name}.weight"]
        return F.conv2d(x, weight, weights.get(f"scratch.{name}.bias"), padding=weight.shape[-1] // 2)

    def unit(x, name):
        return x + conv(conv(x.relu(), f"{name}.conv1").relu(), f"{name}.conv2")

    path = None
    for i in (4, 3, 2, 1):
        level = conv(maps[i - 1], f"layer{i}_rn")
        path = level if path is None else path + unit(level, f"refinenet{i}.resConfUnit1")
        path = unit(path, f"refinenet{i}.resConfUnit2")
        path = F.interpolate(path, scale_factor=2, mode="bilinear", align_corners=True)
        path = conv(path, f"refinenet{i}.out_conv")
    x = F.interpolate(conv(path, "output_conv.0"), scale_factor=2, mode="bilinear", align_corners=False)
    return conv(conv(x, "output_conv.2").relu(), "output_conv.4").relu()[:, 0]


def test_equal_to_the_reference(net, weights, file):
    model = load_midas(file, "midas_v21_small")
    images = torch.rand(2, 3, 256, 256) * 2 - 1
    with torch.no_grad():
        expected = reference(net, weights, images)
        depth = model(images)
    assert depth.shape == expected.shape == (2, 256, 256)
    assert expected.std() > 1e-3 * expected.max() > 0, "a flat depth proves nothing"
    assert (depth - expected).abs().max() < 1e-5 * expected.max()


@pytest.mark.parametrize("size", [(192, 320), (100, 60)])
def test_an_image_that_is_not_square(net, weights, file, size):
    """It is squashed to the square and its depth stretched back."""
    images = torch.rand(1, 3, *size) * 2 - 1
    squashed = F.interpolate(images, (256, 256), mode="bilinear", antialias=True)
    with torch.no_grad():
        expected = reference(net, weights, squashed)[:, None]
        expected = F.interpolate(expected, size, mode="bilinear", antialias=True)[:, 0]
        depth = load_midas(file, "midas_v21_small")(images)
    assert depth.shape == (1, *size)
    assert (depth - expected).abs().max() < 1e-5 * expected.max()


def test_save_and_load_is_bit_identical(file, tmp_path):
    model = load_midas(file, "midas_v21_small")
    model.save(tmp_path / "depth")
    again = load_depth(tmp_path / "depth")
    assert isinstance(again, MidasSmall) and not again.training
    for (name, mine), other in zip(model.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images), again(images))


@pytest.mark.parametrize("name", ["tiny", "midas_v21_small"])  # one of each class
def test_a_network_comes_back_as_what_it_was(name, tmp_path):
    model = new_depth(name)
    model.save(tmp_path / "depth")
    assert type(load_depth(tmp_path / "depth")) is type(model)


def test_wrong_files_and_names_are_named(weights, file, tmp_path):
    with pytest.raises(CheckpointError, match="is MiDaS v2.1's depth network, not MiDaS's DPT"):
        load_midas(file, "dpt_hybrid")
    torch.save({"pretrained.model.cls_token": torch.zeros(1, 1, 768)}, tmp_path / "dpt.pt")
    with pytest.raises(CheckpointError, match="is a DPT depth network, not MiDaS v2.1 small"):
        load_midas(tmp_path / "dpt.pt", "midas_v21_small")
    torch.save({k: v for k, v in weights.items() if "refinenet2" not in k}, tmp_path / "cut.pt")
    with pytest.raises(CheckpointError, match="10 keys missing"):
        load_midas(tmp_path / "cut.pt", "midas_v21_small")
    with pytest.raises(UsageError, match="model.depth.preset=dpt_giant: expected one of dpt_hybrid"):
        load_midas(file, "dpt_giant")
    (tmp_path / "config.json").write_text('{"format": "live2diff-depth-9"}')
    with pytest.raises(CheckpointError, match="'format' is none of"):
        load_depth(tmp_path)
    (tmp_path / "config.json").write_text('{"format": "live2diff-midas-small-1", "image_size": 255}')
    torch.save(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="image_size must be a multiple of 32"):
        load_depth(tmp_path)
