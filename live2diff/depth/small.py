"""MiDaS v2.1 small: a light convolutional depth network, several times as fast as DPT.

Ranftl et al., "Towards Robust Monocular Depth Estimation", 2020, with the key layout of the MiDaS release
(`midas_v21_small_256`), on timm's EfficientNet-lite3:

    pretrained.layer1.{0,1,3,4}    stem, its norm, stages 0 and 1;  32 channels, 1/4 of the size
    pretrained.layer2.0            stage 2;                         48 channels, 1/8
    pretrained.layer3.{0,1}        stages 3 and 4;                 136 channels, 1/16
    pretrained.layer4.{0,1}        stages 5 and 6;                 384 channels, 1/32
    scratch.layer{1-4}_rn.*        each map to 64, 128, 256, 512 channels
    scratch.refinenet{4-1}.*       fusion, coarse to fine, doubling the size and halving the channels
    scratch.output_conv.{0,2,4}.*  the result
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from timm.models.efficientnet import tf_efficientnet_lite3
from torch import nn

from live2diff.depth.base import DepthNetwork
from live2diff.depth.parts import Fusion, conv3
from live2diff.errors import UsageError
from live2diff.interop.kinds import kind_of, refuse
from live2diff.weights import read_weights

_CHANNELS = (32, 48, 136, 384)
_WIDTH = 64
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in [0, 1]
_STRIDE, _LARGEST = 32, 4096
# A unit for a skip connection that the coarsest map does not have.
_UNUSED = "scratch.refinenet4.resConfUnit1."


class MidasSmall(DepthNetwork):
    """Raw inverse depth of images: larger is nearer, of no fixed scale or offset."""

    FORMAT = "live2diff-midas-small-1"

    def __init__(self, image_size: int = 256):
        super().__init__()
        if type(image_size) is not int or image_size % _STRIDE or not 0 < image_size <= _LARGEST:
            raise UsageError(f"depth network: image_size must be a multiple of {_STRIDE} up to {_LARGEST}")
        self._image_size = image_size
        self.pretrained = _backbone()
        self.scratch = _Decoder()

    @property
    def image_size(self) -> int:
        return self._image_size

    def of_square(self, images: torch.Tensor) -> torch.Tensor:
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
        x, maps = (images / 2 + 0.5 - mean) / std, []
        for layer in self.pretrained.children():
            x = layer(x)
            maps.append(x)
        return self.scratch(maps)

    def shape(self) -> dict[str, Any]:
        return {"image_size": self.image_size}

    @classmethod
    def of_shape(cls, shape: Any) -> MidasSmall:
        if not isinstance(shape, dict) or shape.keys() != {"image_size"}:
            raise UsageError("depth network: the config must have exactly the key image_size")
        return cls(shape["image_size"])

    @classmethod
    def load_midas(cls, path: str | os.PathLike) -> MidasSmall:
        """A network with the weights of the official file, .pt or .safetensors, in eval mode on the CPU.

        Raises:
            CheckpointError: not a weight file, or of another network.
        """
        weights = read_weights(Path(path))
        if kind_of(weights) != "MiDaS v2.1's depth network":
            refuse(weights, path, "MiDaS v2.1 small")
        weights = {key: value for key, value in weights.items() if not key.startswith(_UNUSED)}
        return cls.with_weights(cls().shape(), weights, Path(path))


class _Decoder(nn.Module):
    """Four feature maps, fine to coarse -> inverse depth (N, 1, S, S), non-negative."""

    def __init__(self):
        super().__init__()
        widths = [_WIDTH, 2 * _WIDTH, 4 * _WIDTH, 8 * _WIDTH]
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (
            conv3(channels, width, bias=False) for channels, width in zip(_CHANNELS, widths, strict=True)
        )
        self.refinenet1 = Fusion(widths[0])
        self.refinenet2, self.refinenet3 = (Fusion(width, out=width // 2) for width in widths[1:3])
        self.refinenet4 = Fusion(widths[3], skip=False, out=widths[2])
        upsample = nn.Upsample(scale_factor=2, mode="bilinear")
        self.output_conv = nn.Sequential(
            conv3(_WIDTH, _WIDTH // 2),
            upsample,
            conv3(_WIDTH // 2, 32),
            nn.ReLU(),
            nn.Conv2d(32, 1, 1),
            nn.ReLU(),
        )

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        x = self.refinenet4(self.layer4_rn(maps[3]))
        x = self.refinenet3(x, self.layer3_rn(maps[2]))
        x = self.refinenet2(x, self.layer2_rn(maps[1]))
        x = self.refinenet1(x, self.layer1_rn(maps[0]))
        return self.output_conv(x)


def _backbone() -> nn.Module:
    """timm's network without its head, cut into MiDaS's four layers."""
    net: Any = tf_efficientnet_lite3(pretrained=False)
    stages = list(net.blocks)
    layers = nn.Module()
    # timm's norm applies the activation, which has a place of its own in the file's numbering.
    layers.layer1 = nn.Sequential(net.conv_stem, net.bn1, nn.Identity(), *stages[:2])
    layers.layer2 = nn.Sequential(*stages[2:3])
    layers.layer3 = nn.Sequential(*stages[3:5])
    layers.layer4 = nn.Sequential(*stages[5:])
    return layers
