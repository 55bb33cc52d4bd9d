"""A `VideoModel` from the configuration's `model` group, an export folder or a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

from live2diff.depth import DPT, PRESETS
from live2diff.errors import CheckpointError, UsageError
from live2diff.interop.animatediff import check_fit, load_motion_modules
from live2diff.model.text import TextEncoder, character_tokenizer
from live2diff.model.unet import CausalUNet
from live2diff.model.vae import load_vae, new_vae
from live2diff.model.video_model import VideoModel, is_model_folder
from live2diff.runs import checkpoints, run_config, updates_of
from live2diff.settings import Settings
from live2diff.weights import read_weights, realign


def build(config: Mapping[str, Any], seed: int = 0) -> VideoModel:
    """Build or load the model that `config` (conf/model/*.yaml, as plain dicts) describes, on the CPU in
    float32.

    Random weights depend on `seed` alone.

    Raises:
        UsageError: settings that cannot be.
        CheckpointError: a named checkpoint is missing or does not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if "saved" in config:
            model = load_model(config["saved"])
            return _with_settings(model, {**model.settings.to_dict(), **config["settings"]})
        settings = Settings.from_dict(dict(config["settings"]))
        text = _build_text(config["text"], settings)
        vae = _build_vae(config["vae"])
        unet = _build_unet(config["unet"], settings)
        depth = _build_depth(config["depth"])
    settings = replace(settings, vae_scaling=vae.config.scaling_factor)
    return VideoModel(unet, vae, text, depth, settings, {"built_from": _sources(config)})


def load_model(path: str | Path) -> VideoModel:
    """The model in an export folder, or a training run's model with its newest checkpoint.

    Raises:
        CheckpointError: neither of the two, or nothing complete in it.
    """
    path = Path(path)
    if is_model_folder(path):
        return VideoModel.load(path)
    if is_model_folder(path / "model"):
        return VideoModel.load(path / "model")
    if not (path / "config.yaml").is_file():
        kind = "neither an exported model nor a training run" if path.is_dir() else "no such folder"
        raise CheckpointError(f"{path}: {kind}")
    found = checkpoints(path)
    if not found:
        raise CheckpointError(f"{path}: the run has no complete checkpoint yet; let it train further")
    return load_checkpoint(path, found[-1])


def load_checkpoint(run: Path, checkpoint: Path) -> VideoModel:
    """The run's model as it was built, with the trained parameters of `checkpoint` laid over it."""
    config = run_config(run)
    model = build(config["model"], config["seed"])
    weights = load_file(checkpoint / "weights.safetensors")
    own = model.unet.state_dict()
    check_fit(weights, {key: own[key] for key in weights if key in own}, str(checkpoint))
    model.unet.load_state_dict(weights, strict=False)
    model.provenance["training"] = [
        *model.provenance.get("training", []),
        {
            "run": config["name"],
            "updates": updates_of(checkpoint),
            "seed": config["seed"],
            **{key: config[key] for key in ("data", "optim", "trainer")},
        },
    ]
    return model


def _with_settings(model: VideoModel, values: dict[str, Any]) -> VideoModel:
    settings = Settings.from_dict(values)
    if settings.vae_scaling != model.settings.vae_scaling:
        raise UsageError("model.settings.vae_scaling belongs to the saved VAE and cannot be changed")
    model.unet.set_window(settings.window, settings.warmup)
    model.text.settings = settings.text
    model.settings = settings
    return model


def _build_unet(config: Mapping[str, Any], settings: Settings) -> CausalUNet:
    if config["pretrained"] is None:
        unet = CausalUNet(**config["config"])
    else:
        base = _pretrained("model.unet.pretrained", UNet2DConditionModel, config["pretrained"], "unet")
        unet = cast(CausalUNet, CausalUNet.from_unet2d(base))
    unet.set_window(settings.window, settings.warmup)
    if config["motion"] is not None:
        load_motion_modules(unet, read_weights(Path(config["motion"])), config["motion"])
    return unet.eval()


def _build_vae(config: Mapping[str, Any]):
    if config["pretrained"] is None:
        return new_vae(config["kind"], dict(config["config"]))
    try:
        return load_vae(config["pretrained"], config["kind"])
    except (OSError, ValueError) as error:
        raise _not_found("model.vae.pretrained", config["pretrained"], error) from error


def _build_text(config: Mapping[str, Any], settings: Settings) -> TextEncoder:
    if config["pretrained"] is not None:
        try:
            return TextEncoder.load(config["pretrained"], settings.text)
        except (OSError, ValueError) as error:
            raise _not_found("model.text.pretrained", config["pretrained"], error) from error
    tokenizer = character_tokenizer()
    special: dict[str, Any] = {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")
    }
    shape = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=settings.text.max_length,
        **special,
        **config["config"],
    )
    return TextEncoder(tokenizer, CLIPTextModel(shape), settings.text)


def _build_depth(config: Mapping[str, Any]) -> DPT:
    if config["preset"] not in PRESETS:
        raise UsageError(f"model.depth.preset={config['preset']}: expected one of {', '.join(PRESETS)}")
    if config["weights"] is None:
        return DPT(PRESETS[config["preset"]])
    return DPT.load_midas(config["weights"], config["preset"])


def _pretrained(key: str, kind: type, where: str, subfolder: str) -> Any:
    try:
        return realign(kind.from_pretrained(where, subfolder=subfolder))
    except (OSError, ValueError) as error:
        raise _not_found(key, where, error) from error


def _not_found(key: str, where: str, error: Exception) -> CheckpointError:
    reason = str(error).strip().splitlines()[0]
    return CheckpointError(
        f"{key}={where}: neither a usable folder nor a hub id that can be fetched ({reason})"
    )


def _sources(config: Mapping[str, Any]) -> dict[str, str]:
    """Which checkpoint each part came from; parts with random weights are left out."""
    sources = {
        part: config[part].get("pretrained") or config[part].get("weights")
        for part in ("unet", "vae", "text", "depth")
    }
    sources["motion"] = config["unet"]["motion"]
    return {part: str(source) for part, source in sources.items() if source}
