"""The parts of DPT: a backbone that makes four feature maps and a decoder that fuses them.

Module names are the weights' names in MiDaS files, see `live2diff.depth.dpt`.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import HybridEmbed, StdConv2dSame
from timm.models.resnetv2 import ResNetV2
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from live2diff.depth.config import DPTConfig


class Backbone(nn.Module):
    """(N, 3, S, S) in [-1, 1] -> four feature maps at 4, 2, 1 and 1/2 times the token grid."""

    def __init__(self, config: DPTConfig):
        super().__init__()
        self.taps = config.taps
        self.hybrid = bool(config.resnet)
        self.model: Any = _vit(config)  # timm types its parts too loosely to be checked
        for index, scale in enumerate((4, 2, 1, 0.5)):
            if not (self.hybrid and index < 2):
                self.add_module(f"act_postprocess{index + 1}", _reassemble(config, config.neck[index], scale))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        embed, maps = self.model.patch_embed, []
        if self.hybrid:
            x = embed.backbone.stem(images)
            for stage in embed.backbone.stages:
                x = stage(x)
                maps.append(x)
            tokens = embed.proj(maps.pop()).flatten(2).transpose(1, 2)
        else:
            tokens = embed(images)
        tokens = torch.cat([self.model.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        tokens = tokens + self.model.pos_embed
        for index, block in enumerate(self.model.blocks):
            tokens = block(tokens)
            if index in self.taps:
                maps.append(self.get_submodule(f"act_postprocess{len(maps) + 1}")(tokens))
        return maps


class Decoder(nn.Module):
    """Four feature maps, fine to coarse -> inverse depth (N, 1, S, S), non-negative."""

    def __init__(self, config: DPTConfig):
        super().__init__()
        width, half = config.features, config.features // 2
        self.layer1_rn, self.layer2_rn, self.layer3_rn, self.layer4_rn = (
            conv3(channels, width, bias=False) for channels in config.neck
        )
        self.refinenet1, self.refinenet2, self.refinenet3 = (Fusion(width) for _ in range(3))
        self.refinenet4 = Fusion(width, skip=False)
        # From half of the image's size (patch 16) to all of it; MiDaS says "times two", the same there.
        upsample = nn.Upsample((config.image_size,) * 2, mode="bilinear", align_corners=True)
        result = nn.Conv2d(32, 1, kernel_size=1)
        # A fresh network must start where the last ReLU passes gradients, or it may never learn.
        nn.init.constant_(result.bias, 1.0)  # pyright: ignore[reportArgumentType]
        self.output_conv = nn.Sequential(
            conv3(width, half), upsample, conv3(half, 32), nn.ReLU(), result, nn.ReLU()
        )

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        x = self.refinenet4(self.layer4_rn(maps[3]))
        x = self.refinenet3(x, self.layer3_rn(maps[2]))
        x = self.refinenet2(x, self.layer2_rn(maps[1]))
        x = self.refinenet1(x, self.layer1_rn(maps[0]))
        return self.output_conv(x)


class Fusion(nn.Module):
    """Adds a finer map to the path from below, doubles the size; `out` channels, by default as many."""

    def __init__(self, width: int, skip: bool = True, out: int | None = None):
        super().__init__()
        if skip:
            self.resConfUnit1 = ResidualUnit(width)
        self.resConfUnit2 = ResidualUnit(width)
        self.out_conv = nn.Conv2d(width, out or width, kernel_size=1)

    def forward(self, x: torch.Tensor, finer: torch.Tensor | None = None) -> torch.Tensor:
        if finer is not None:
            x = x + self.resConfUnit1(finer)
        x = F.interpolate(self.resConfUnit2(x), scale_factor=2, mode="bilinear", align_corners=True)
        return self.out_conv(x)


class ResidualUnit(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv1 = conv3(width, width)
        self.conv2 = conv3(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Readout(nn.Module):
    """Tokens (N, 1 + G*G, C) -> map (N, C, G, G): each patch token, projected beside the class token."""

    def __init__(self, width: int, grid: int):
        super().__init__()
        self.grid = grid
        self.project = nn.Sequential(nn.Linear(2 * width, width), nn.GELU())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        patches = tokens[:, 1:]
        patches = self.project(torch.cat([patches, tokens[:, :1].expand_as(patches)], dim=-1))
        return patches.transpose(1, 2).unflatten(2, (self.grid, self.grid))


def _reassemble(config: DPTConfig, channels: int, scale: float) -> nn.Sequential:
    """Tokens -> map of `channels` at `scale` times the grid, under MiDaS's names "0", "3" and "4"."""
    parts: dict[str, nn.Module] = {
        "0": Readout(config.width, config.grid),
        "3": nn.Conv2d(config.width, channels, kernel_size=1),
    }
    if scale > 1:
        parts["4"] = nn.ConvTranspose2d(channels, channels, kernel_size=int(scale), stride=int(scale))
    elif scale < 1:
        parts["4"] = nn.Conv2d(channels, channels, kernel_size=3, stride=int(1 / scale), padding=1)
    return nn.Sequential(OrderedDict(parts))


def _vit(config: DPTConfig) -> VisionTransformer:
    """timm's ViT as in `vit_base_r50_s16_384` and `vit_large_patch16_384`, without its last norm and head."""
    hybrid = {}
    if config.resnet:
        convolution = partial(StdConv2dSame, eps=1e-8)
        resnet = ResNetV2(
            list(config.resnet),
            num_classes=0,
            global_pool="",
            preact=False,
            stem_type="same",
            conv_layer=convolution,
        )
        hybrid["embed_layer"] = partial(HybridEmbed, backbone=resnet)
    return VisionTransformer(
        img_size=config.image_size,
        patch_size=1 if config.resnet else config.patch,
        embed_dim=config.width,
        depth=config.taps[-1] + 1,
        num_heads=config.heads,
        num_classes=0,
        final_norm=False,
        **hybrid,
    )


def conv3(before: int, after: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel_size=3, padding=1, bias=bias)
