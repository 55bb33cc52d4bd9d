"""A `VideoModel` from the configuration's `model` group, an export folder or a training run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from live2diff.depth import DPT, PRESETS
from live2diff.errors import CheckpointError, Live2DiffError, UsageError
from live2diff.interop.animatediff import check_fit, load_motion_modules
from live2diff.model.text import TextEncoder, character_tokenizer
from live2diff.model.unet import CausalUNet
from live2diff.model.vae import VAE, load_vae, new_vae
from live2diff.model.video_model import VideoModel, is_model_folder
from live2diff.runs import checkpoints, is_checkpoint, run_config, updates_of
from live2diff.settings import Settings
from live2diff.weights import load_pretrained, read_weights


def build(config: Mapping[str, Any], seed: int = 0) -> VideoModel:
    """The model that a configuration's `model` group describes, on the CPU in float32.

    Args:
        config: one of conf/model/*.yaml, as plain dicts.
        seed: decides random weights, where there are any.

    Raises:
        UsageError: settings that cannot be.
        CheckpointError: a named checkpoint is missing or does not fit.
    """
    if "saved" in config:
        model = load_model(config["saved"])
        return _with_settings(model, _merged(model.settings.to_dict(), config["settings"]))
    settings = Settings.from_dict(dict(config["settings"]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = _build_unet(config["unet"], settings)
        vae = _build_vae(config["vae"])
        text = _build_text(config["text"], settings)
        depth = _build_depth(config["depth"])
    settings = replace(settings, vae_scaling=vae.config.scaling_factor)
    return VideoModel(unet, vae, text, depth, settings, {"built_from": _sources(config)})


def locate(path: str | Path) -> Path:
    """Where exactly the model of `path` is: a model folder, or a training run's newest checkpoint.

    Raises:
        CheckpointError: `path` is neither an export, nor a run or one of its checkpoints.
    """
    path = Path(path)
    for folder in (path, path / "model"):
        if is_model_folder(folder):
            return folder
    if is_checkpoint(path):
        return path
    if not (path / "config.yaml").is_file():
        kind = "neither an exported model nor a training run" if path.is_dir() else "no such folder"
        raise CheckpointError(f"{path}: {kind}")
    found = checkpoints(path)
    if not found:
        raise CheckpointError(f"{path}: the run has no complete checkpoint yet; let it train further")
    return found[-1]


def load_model(path: str | Path) -> VideoModel:
    """The model at `locate(path)`. Raises CheckpointError when there is none or it does not load."""
    place = locate(path)
    return VideoModel.load(place) if is_model_folder(place) else _load_checkpoint(place)


def _load_checkpoint(checkpoint: Path) -> VideoModel:
    """A run's model as it was built, with the trained parameters laid over it."""
    config = run_config(checkpoint.parents[1])
    model = as_trained(build(config["model"], config["seed"]), config)
    weights = read_weights(checkpoint / "weights.safetensors")
    own = model.unet.state_dict()
    check_fit(weights, {key: own[key] for key in weights if key in own}, str(checkpoint))
    model.unet.load_state_dict(weights, strict=False)
    stage = {key: config[key] for key in ("seed", "data", "optim", "trainer")}
    stage = {"run": config["name"], "updates": updates_of(checkpoint), **stage}
    model.provenance["training"] = [*model.provenance.get("training", []), stage]
    return model


def as_trained(model: VideoModel, config: Mapping[str, Any]) -> VideoModel:
    """Make the model's settings say what a run with `config` trains it for: mask, depth and size."""
    size = config["data"]["size"]
    trainer = config["trainer"]
    values = {"mask": trainer["mask"], "uses_depth": trainer["depth"], "size": (size, size)}
    model.settings = Settings.from_dict({**model.settings.to_dict(), **values})
    return model


def _merged(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, branch by branch."""
    merged = dict(base)
    for key, value in changes.items():
        nested = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merged(base[key], value) if nested else value
    return merged


def _with_settings(model: VideoModel, values: dict[str, Any]) -> VideoModel:
    settings = Settings.from_dict(values)
    if settings.vae_scaling != model.settings.vae_scaling:
        raise UsageError("model.settings.vae_scaling belongs to the saved VAE and cannot be changed")
    _set_window(model.unet, settings)
    model.text.settings = settings.text
    model.settings = settings
    return model


def _build_unet(config: Mapping[str, Any], settings: Settings) -> CausalUNet:
    with _part("model.unet", config):
        if config["pretrained"] is None:
            unet = CausalUNet(**config["config"])
        else:
            base = load_pretrained(UNet2DConditionModel, config["pretrained"], subfolder="unet")
            unet = cast(CausalUNet, CausalUNet.from_unet2d(base))
    _set_window(unet, settings)
    if config["motion"] is not None:
        load_motion_modules(unet, read_weights(Path(config["motion"])), config["motion"])
    return unet.eval()


def _set_window(unet: CausalUNet, settings: Settings) -> None:
    try:
        unet.set_window(settings.window, settings.warmup)
    except ValueError as error:
        raise UsageError(f"model.settings: {error}") from error


def _build_vae(config: Mapping[str, Any]) -> VAE:
    with _part("model.vae", config):
        if config["pretrained"] is not None:
            return load_vae(config["pretrained"])
        return new_vae(config["kind"], dict(config["config"]))


def _build_text(config: Mapping[str, Any], settings: Settings) -> TextEncoder:
    with _part("model.text", config):
        if config["pretrained"] is not None:
            return TextEncoder.load(config["pretrained"], settings.text)
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


@contextmanager
def _part(key: str, config: Mapping[str, Any]) -> Iterator[None]:
    """Whatever diffusers and transformers raise for a wrong folder or a wrong size becomes one line."""
    try:
        yield
    except Live2DiffError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if config["pretrained"] is None:
            raise UsageError(f"{key}.config: {reason}") from error
        where = config["pretrained"]
        raise CheckpointError(
            f"{key}.pretrained={where}: neither a usable folder nor a hub id that can be fetched ({reason})"
        ) from error


def _sources(config: Mapping[str, Any]) -> dict[str, str]:
    """Which checkpoint each part came from; parts with random weights are left out."""
    sources = {
        part: config[part].get("pretrained") or config[part].get("weights")
        for part in ("unet", "vae", "text", "depth")
    }
    sources["motion"] = config["unet"]["motion"]
    return {part: str(source) for part, source in sources.items() if source}
