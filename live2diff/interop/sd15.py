"""Stable Diffusion 1.5's UNet, and its like, as the image half of ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from live2diff.errors import CheckpointError
from live2diff.interop.animatediff import is_spatial
from live2diff.interop.single_file import unet_weights
from live2diff.interop.sizes import folder_config, part_folder, sd15_config
from live2diff.model.depth_branch import DepthBranch
from live2diff.model.unet import CausalUNet
from live2diff.weights import fit_weights, initialise, read_folder, read_weights, without_weights


def load_unet(path: Path, changes: Mapping[str, Any] | None = None, *, motion: bool = True) -> CausalUNet:
    """Our UNet with the spatial weights of an SD1.5-like model; motion modules and depth branch start fresh.

    Args:
        path: a folder in diffusers' layout, of the whole model or of the UNet; or a single file.
        changes: for a single file, what differs from SD1.5's sizes.
        motion: False leaves the motion modules without memory, for a caller who loads them next.

    Raises:
        CheckpointError: not such a model, or damaged.
    """
    if path.is_dir():
        folder = part_folder(path, "unet")
        config = folder_config(folder)
        _check_unet_config(config, folder / "config.json")
        weights = read_folder(folder)
    else:
        config, weights = sd15_config("unet", changes), read_weights(path)
    weights = unet_weights(weights, config, path)
    sizes: Any = SimpleNamespace(config={**sd15_config("unet"), **config})  # all that is asked of a UNet here
    with without_weights():
        unet = cast(CausalUNet, CausalUNet.from_unet2d(sizes, load_weights=False))
    fit_weights(unet, weights, path, only=is_spatial)
    unet.depth_branch = DepthBranch(unet.config["depth_channels"], unet.config["block_out_channels"][0])
    if motion:
        initialise(unet)
    return unet


def _check_unet_config(config: Mapping[str, Any], where: Path) -> None:
    kind = config.get("_class_name", "UNet2DConditionModel")
    other = {
        "a Stable Diffusion XL model": config.get("addition_embed_type") == "text_time",
        "a Stable Diffusion 2 model": config.get("cross_attention_dim") == 1024,
        "an inpainting model": config.get("in_channels") == 9,
        "an instruct-pix2pix model": config.get("in_channels") == 8,
        f"a {ascii(kind)[1:-1][:50]}": kind != "UNet2DConditionModel",
    }
    for name, found in other.items():
        if found:
            raise CheckpointError(f"{where}: is {name}, not a Stable Diffusion 1.5 model; give another")
