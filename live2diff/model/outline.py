"""The sizes of a model without its weights: what a configuration would build, before anything is fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from live2diff.depth import DPT, DepthNetwork, MidasSmall, new_depth
from live2diff.errors import CheckpointError
from live2diff.interop.sizes import folder_config, part_folder, sd15_config
from live2diff.model.build import locate
from live2diff.model.depth_branch import DepthBranch
from live2diff.model.folder import is_model_folder, read_config
from live2diff.model.text import TextEncoder, character_tokenizer
from live2diff.model.unet import CausalUNet
from live2diff.model.vae import KINDS, VAE, kind_in, new_vae
from live2diff.model.video_model import VideoModel
from live2diff.references import find_local
from live2diff.runs import run_config
from live2diff.settings import Settings
from live2diff.weights import read_json


def outline(config: Mapping[str, Any]) -> VideoModel:
    """The model that a configuration's `model` group describes, all of it on the meta device.

    Only configs are read. A part whose files are not on this machine, or a single file, has SD1.5's sizes
    with the changes that the configuration states. The tokenizer is a stand-in.

    Raises:
        CheckpointError: `saved` names nothing, or what lies there cannot be read.
        UsageError: settings that cannot be.
    """
    with torch.device("meta"):
        if "saved" not in config:
            return _described(config)
        place = locate(config["saved"])
        if is_model_folder(place):
            model = _folder(place)
        else:
            model = outline(run_config(place.parents[1])["model"])
    changes = {key: value for key, value in config["settings"].items() if not isinstance(value, dict)}
    model.settings = Settings.from_dict({**model.settings.to_dict(), **changes})
    return model


def _described(config: Mapping[str, Any]) -> VideoModel:
    settings = Settings.from_dict(dict(config["settings"]))
    unet, vae, text, depth = (config[part] for part in ("unet", "vae", "text", "depth"))
    return VideoModel(
        unet=CausalUNet(**unet["config"]) if unet["pretrained"] is None else _sd15_unet(_sizes("unet", unet)),
        vae=new_vae(vae["kind"], dict(vae["config"]))
        if vae["pretrained"] is None
        else _vae(_sizes("vae", vae), vae["pretrained"]),
        text=_small_text(text, settings)
        if text["pretrained"] is None
        else _text(_sizes("text_encoder", text, "text_config"), settings),
        depth=new_depth(depth["preset"]),
        settings=settings,
    )


def _folder(folder: Path) -> VideoModel:
    settings = read_config(folder).settings
    depth = read_json(folder / "depth" / "config.json")
    kinds: dict[Any, type[DepthNetwork]] = {kind.FORMAT: kind for kind in (DPT, MidasSmall)}
    return VideoModel(
        unet=cast(CausalUNet, CausalUNet.from_config(folder_config(folder / "unet"))),
        vae=_vae(folder_config(folder / "vae"), folder / "vae"),
        text=_text(folder_config(folder / "text_encoder", section="text_config"), settings),
        depth=kinds[depth.pop("format")].of_shape(depth),
        settings=settings,
    )


def _sizes(part: str, config: Mapping[str, Any], section: str | None = None) -> dict[str, Any]:
    path = find_local(config["pretrained"])
    if path is not None and path.is_dir():
        try:
            return folder_config(part_folder(path, part), section)
        except CheckpointError:  # TAESD's two files, for one; building says what is wrong
            pass
    return sd15_config(part, config.get("config"))


def _sd15_unet(sizes: Mapping[str, Any]) -> CausalUNet:
    stock: Any = SimpleNamespace(config={**sd15_config("unet"), **sizes})
    unet = cast(CausalUNet, CausalUNet.from_unet2d(stock, load_weights=False))
    unet.depth_branch = DepthBranch(unet.config["depth_channels"], unet.config["block_out_channels"][0])
    return unet


def _vae(sizes: dict[str, Any], name: Path | str) -> VAE:
    return cast(VAE, KINDS[kind_in({"_class_name": "AutoencoderKL", **sizes}, name)].from_config(sizes))


def _text(sizes: dict[str, Any], settings: Settings) -> TextEncoder:
    return TextEncoder(character_tokenizer(), CLIPTextModel(CLIPTextConfig.from_dict(sizes)), settings.text)


def _small_text(config: Mapping[str, Any], settings: Settings) -> TextEncoder:
    tokenizer = character_tokenizer()
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": settings.text.max_length}
    special = {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in ("bos", "eos", "pad")}
    return _text({**sizes, **special, **config["config"]}, settings)


def parameters_of(module: nn.Module) -> int:
    """How many numbers a module holds, trained or not."""
    return sum(parameter.numel() for parameter in module.parameters())
