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

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from live2diff.depth.config import PRESETS, DPTConfig
from live2diff.depth.parts import Backbone, Decoder
from live2diff.errors import CheckpointError, UsageError
from live2diff.files import staged_folder, write_json
from live2diff.weights import fit_weights, read_json, read_weights

_FORMAT = "live2diff-dpt-1"
_POS_EMBED = "pretrained.model.pos_embed"
# In MiDaS files, but without effect on the depth: the classifier, the norm after the last block, and a unit
# for a skip connection that the coarsest map does not have.
_UNUSED = ("pretrained.model.head.", "pretrained.model.norm.", "scratch.refinenet4.resConfUnit1.")


class DPT(nn.Module):
    """Raw inverse depth of images: larger is nearer, of no fixed scale or offset."""

    def __init__(self, config: DPTConfig):
        super().__init__()
        self.config = config
        self.pretrained = Backbone(config)
        self.scratch = Decoder(config)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Inverse depth of each image on its own, at its own size.

        The network sees a square: images are squashed to it, which keeps the whole picture, and the result is
        stretched back. Both are bilinear, antialiased where they shrink.

        Args:
            images: (N, 3, H, W) in [-1, 1], of the weights' dtype.

        Returns:
            (N, H, W), non-negative.
        """
        side = self.config.image_size
        depth = self.scratch(self.pretrained(_resize(images, (side, side))))
        return _resize(depth, images.shape[-2:])[:, 0]

    def save(self, folder: str | os.PathLike) -> None:
        """Write config.json and model.safetensors as `folder`, replacing an old one when the new is whole."""
        with staged_folder(folder) as stage:
            write_json(stage / "config.json", {"format": _FORMAT, **self.config.to_dict()})
            weights = {key: tensor.contiguous() for key, tensor in self.state_dict().items()}
            save_file(weights, stage / "model.safetensors", metadata={"format": "pt"})

    @classmethod
    def load(cls, folder: str | os.PathLike) -> DPT:
        """The network that `save` wrote, in float32 on the CPU, in eval mode. Raises `CheckpointError`."""
        path = Path(folder) / "config.json"
        data = read_json(path)
        if data.pop("format", None) != _FORMAT:
            raise CheckpointError(
                f"{path}: 'format' is not {_FORMAT!r}; written by another version of live2diff?"
            )
        try:
            config = DPTConfig.from_dict(data)
        except UsageError as error:
            raise CheckpointError(f"{path}: {error}") from error
        path = Path(folder) / "model.safetensors"
        return cls._with(config, read_weights(path), path)

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
        weights = {
            key: value for key, value in read_weights(Path(path)).items() if not key.startswith(_UNUSED)
        }
        if _POS_EMBED in weights:
            weights[_POS_EMBED] = _resize_positions(weights[_POS_EMBED], preset.grid)
        return cls._with(preset, weights, Path(path))

    @classmethod
    def _with(cls, config: DPTConfig, weights: dict[str, torch.Tensor], where: Path) -> DPT:
        with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
            model = cls(config)
        fit_weights(model, weights, where)
        return model.eval()


def _resize(x: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    if x.shape[-2:] == size:
        return x
    # In float32: the CPU has no antialiased resize for half precision.
    return F.interpolate(x.float(), size, mode="bilinear", antialias=True).to(x.dtype)


def _resize_positions(positions: torch.Tensor, grid: int) -> torch.Tensor:
    """(1, 1 + g*g, C) -> (1, 1 + grid*grid, C). What is not of that shape is left to the shape check."""
    side = math.isqrt(max(positions.shape[1] - 1, 0)) if positions.ndim == 3 else 0
    if side in (0, grid) or positions.shape[1] != 1 + side * side or not positions.is_floating_point():
        return positions
    patches = positions[:, 1:].float().transpose(1, 2).unflatten(2, (side, side))
    patches = F.interpolate(patches, (grid, grid), mode="bilinear").flatten(2).transpose(1, 2)
    return torch.cat([positions[:, :1].float(), patches], dim=1)
