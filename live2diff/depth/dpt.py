"""DPT, the depth network: ViT tokens reassembled into four feature maps and fused from coarse to fine.

Ranftl et al., "Vision Transformers for Dense Prediction", 2021, with the key layout of the MiDaS release:

    pretrained.model.*                 the timm ViT, or ResNet + ViT ("hybrid")
    pretrained.act_postprocess{1-4}.*  tokens -> feature map at 4, 2, 1 and 1/2 times the token grid
    scratch.layer{1-4}_rn.*            each map to `features` channels
    scratch.refinenet{4-1}.*           fusion, coarse to fine, doubling the size each time
    scratch.output_conv.{0,2,4}.*      the result

Keys number the entries of a Sequential, those without weights included: hence the gaps.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from live2diff.depth.base import DepthNetwork
from live2diff.depth.config import PRESETS, DPTConfig
from live2diff.depth.parts import Backbone, Decoder
from live2diff.errors import UsageError
from live2diff.interop.kinds import kind_of, refuse
from live2diff.weights import read_weights

_POS_EMBED = "pretrained.model.pos_embed"
# In MiDaS files, but without effect on the depth: the classifier, the norm after the last block, and a unit
# for a skip connection that the coarsest map does not have.
_UNUSED = ("pretrained.model.head.", "pretrained.model.norm.", "scratch.refinenet4.resConfUnit1.")


class DPT(DepthNetwork):
    """Raw inverse depth of images: larger is nearer, of no fixed scale or offset."""

    FORMAT = "live2diff-dpt-1"

    def __init__(self, config: DPTConfig):
        super().__init__()
        self.config = config
        self.pretrained = Backbone(config)
        self.scratch = Decoder(config)

    @property
    def image_size(self) -> int:
        return self.config.image_size

    def of_square(self, images: torch.Tensor) -> torch.Tensor:
        return self.scratch(self.pretrained(images))

    def shape(self) -> dict[str, Any]:
        return self.config.to_dict()

    @classmethod
    def of_shape(cls, shape: Any) -> DPT:
        return cls(DPTConfig.from_dict(shape))

    @classmethod
    def load_midas(cls, path: str | os.PathLike, preset: str | DPTConfig = "dpt_hybrid") -> DPT:
        """A network with the weights of an official MiDaS file, in float32 on the CPU, in eval mode.

        Args:
            path: .pt or .safetensors. Entries that have no effect on the depth are dropped.
            preset: name in `PRESETS`, or a config; one with another `image_size` than the file's is fine, the
                position embedding is then resized as MiDaS does it (bilinear).

        Raises:
            UsageError: an unknown preset.
            CheckpointError: not a weight file, or not one for this preset.
        """
        if isinstance(preset, str):
            if preset not in PRESETS:
                raise UsageError(
                    f"depth network: preset {preset!r} is unknown; use one of {', '.join(PRESETS)}"
                )
            preset = PRESETS[preset]
        weights = read_weights(Path(path))
        if kind_of(weights) not in ("a DPT depth network", None):
            refuse(weights, path, "MiDaS's DPT")
        weights = {key: value for key, value in weights.items() if not key.startswith(_UNUSED)}
        if _POS_EMBED in weights:
            weights[_POS_EMBED] = _resize_positions(weights[_POS_EMBED], preset.grid)
        return cls.with_weights(preset.to_dict(), weights, Path(path))


def _resize_positions(positions: torch.Tensor, grid: int) -> torch.Tensor:
    """(1, 1 + g*g, C) -> (1, 1 + grid*grid, C). What is not of that shape is left to the shape check."""
    side = math.isqrt(max(positions.shape[1] - 1, 0)) if positions.ndim == 3 else 0
    if side in (0, grid) or positions.shape[1] != 1 + side * side or not positions.is_floating_point():
        return positions
    patches = positions[:, 1:].float().transpose(1, 2).unflatten(2, (side, side))
    patches = F.interpolate(patches, (grid, grid), mode="bilinear").flatten(2).transpose(1, 2)
    return torch.cat([positions[:, :1].float(), patches], dim=1)
