"""A `VideoModel` from the configuration's `model` group, an export folder or a training run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextConfig, CLIPTextModel

from live2diff.depth import DepthNetwork, load_midas, new_depth
from live2diff.errors import CheckpointError, Live2DiffError, UsageError
from live2diff.interop.animatediff import load_depth_branch, load_motion_modules, read_motion
from live2diff.interop.history import run_facts, trained_weights
from live2diff.interop.lora import bake_lora, merge_loras, start_lora
from live2diff.interop.sd15 import load_unet
from live2diff.model.folder import is_model_folder
from live2diff.model.text import TextEncoder, character_tokenizer, load_tokenizer
from live2diff.model.unet import CausalUNet
from live2diff.model.vae import VAE, load_vae, new_vae
from live2diff.model.video_model import VideoModel
from live2diff.references import find, references
from live2diff.runs import checkpoints, is_checkpoint, run_config
from live2diff.settings import Settings
from live2diff.weights import fit_weights, read_weights


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
        loras = _loras(config)
        model = load_model(config["saved"])
        bake_lora(model)  # one that its run trained: what comes next builds on the whole
        model = _with_settings(model, _merged(model.settings.to_dict(), config["settings"]))
        return _with_loras(model, loras)
    settings = Settings.from_dict(dict(config["settings"]))
    loras = _loras(config)
    _need_all(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = _build_unet(config["unet"], settings)
        vae = _build_vae(config["vae"])
        text = _build_text(config["text"], settings)
        depth = _build_depth(config["depth"])
    settings = replace(settings, vae_scaling=vae.config.scaling_factor)
    model = VideoModel(unet, vae, text, depth, settings, {"built_from": _sources(config)})
    return _with_loras(model, loras)


def _need_all(config: Mapping[str, Any]) -> None:
    """Say what is missing before anything large is read."""
    for key, reference in references(config):
        find(reference, f"model.{key}")
    text = config["text"]
    if text["pretrained"] is not None and text.get("tokenizer") is None:
        load_tokenizer(find(text["pretrained"], "model.text.pretrained"))


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


def load_model(path: str | Path, weights: str = "raw") -> VideoModel:
    """The model at `locate(path)`; `weights` is raw, or ema for the average that a run kept beside them.

    Raises:
        CheckpointError: there is none, or it does not load.
    """
    place = locate(path)
    if not is_model_folder(place):
        return _load_checkpoint(place, weights)
    if weights != "raw":
        raise CheckpointError(f"{place}: is a whole model, which has one set of weights; leave out {weights}")
    return VideoModel.load(place)


def _load_checkpoint(checkpoint: Path, kind: str) -> VideoModel:
    """A run's model as it was built, with the trained parameters laid over it."""
    config = run_config(checkpoint.parents[1])
    model = as_trained(build(config["model"], config["seed"]), config)
    weights = read_weights(trained_weights(checkpoint, kind))
    fit_weights(model.unet, weights, checkpoint, only=weights.__contains__)
    stage = {**run_facts(checkpoint, config), "weights": kind}
    model.provenance["training"] = [*model.provenance.get("training", []), stage]
    return model


def as_trained(model: VideoModel, config: Mapping[str, Any]) -> VideoModel:
    """Make the model what a run with `config` trains: settings for its mask, depth and size, and its LoRA.

    Raises:
        UsageError: clips with more frames than the mask can tell apart.
    """
    size, frames = config["data"]["size"], config["data"]["frames"]
    trainer = config["trainer"]
    longest = model.unet.config["motion_max_seq_length"]
    if trainer["mask"] == "bidirectional" and frames > longest:
        raise UsageError(
            f"data.frames={frames}: expected {longest} or fewer with trainer.mask=bidirectional, the motion "
            "modules have no more positional encodings; the other masks take any number"
        )
    values = {"mask": trainer["mask"], "uses_depth": trainer["depth"], "size": (size, size)}
    model.settings = Settings.from_dict({**model.settings.to_dict(), **values})
    if trainer.get("lora"):
        start_lora(model, trainer["lora"]["rank"], trainer["lora"]["alpha"], config["seed"])
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


def _loras(config: Mapping[str, Any]) -> list[tuple[Path, float]]:
    """`loras` as pairs of file and scale."""
    pairs = []
    for i, lora in enumerate(config.get("loras") or ()):
        scale = lora.get("scale", 1.0) if isinstance(lora, Mapping) else None
        if not isinstance(lora, Mapping) or "path" not in lora or not isinstance(scale, int | float):
            raise UsageError(f"model.loras[{i}]={lora}: expected {{path: FILE, scale: NUMBER}}")
        pairs.append((find(lora["path"], f"model.loras[{i}].path"), float(scale)))
    return pairs


def _with_loras(model: VideoModel, loras: list[tuple[Path, float]]) -> VideoModel:
    """The model with LoRA files fused into its weights: what is trained then starts from the style."""
    if loras:
        merge_loras(model, loras)
    return model


def _build_unet(config: Mapping[str, Any], settings: Settings) -> CausalUNet:
    key = "model.unet"
    with _part(key, config):
        if config["pretrained"] is None:
            unet = CausalUNet(**(config.get("config") or {}))
        else:
            path = find(config["pretrained"], f"{key}.pretrained")
            unet = load_unet(path, config.get("config"), motion=config["motion"] is None)
    if settings.window <= unet.config["motion_max_seq_length"]:
        _set_window(unet, settings)
    if config["motion"] is not None:
        path = find(config["motion"], f"{key}.motion")
        load_motion_modules(unet, read_motion(path, unet), path)
    if config.get("depth_branch") is not None:
        path = find(config["depth_branch"], f"{key}.depth_branch")
        load_depth_branch(unet, read_weights(path), path)
    _set_window(unet, settings)  # again: the motion modules may hold positions for more frames
    return unet.eval()


def _set_window(unet: CausalUNet, settings: Settings) -> None:
    try:
        unet.set_window(settings.window, settings.warmup)
    except ValueError as error:
        raise UsageError(f"model.settings: {error}") from error


def _build_vae(config: Mapping[str, Any]) -> VAE:
    with _part("model.vae", config):
        if config["pretrained"] is not None:
            return load_vae(find(config["pretrained"], "model.vae.pretrained"), config.get("config"))
        return new_vae(config["kind"], dict(config["config"]))


def _build_text(config: Mapping[str, Any], settings: Settings) -> TextEncoder:
    with _part("model.text", config):
        if config["pretrained"] is not None:
            path = find(config["pretrained"], "model.text.pretrained")
            words = config.get("tokenizer")
            words = None if words is None else find(words, "model.text.tokenizer")
            return TextEncoder.load(path, settings.text, words, config.get("config"))
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


def _build_depth(config: Mapping[str, Any]) -> DepthNetwork:
    if config["weights"] is None:
        return new_depth(config["preset"])
    return load_midas(find(config["weights"], "model.depth.weights"), config["preset"])


@contextmanager
def _part(key: str, config: Mapping[str, Any]) -> Iterator[None]:
    """Whatever diffusers and transformers raise for a wrong folder or a wrong size becomes one line."""
    try:
        yield
    except Live2DiffError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if config["pretrained"] is None:
            raise UsageError(f"{key}.config: {reason}") from error
        where = config["pretrained"]
        raise CheckpointError(
            f"{key}.pretrained={where}: cannot be loaded ({reason}); get it again"
        ) from error


def _sources(config: Mapping[str, Any]) -> dict[str, str]:
    """Which checkpoint each part came from; parts with random weights are left out."""
    sources = {
        part: config[part].get("pretrained") or config[part].get("weights")
        for part in ("unet", "vae", "text", "depth")
    }
    sources["motion"] = config["unet"]["motion"]
    sources["depth_branch"] = config["unet"].get("depth_branch")
    return {part: str(source) for part, source in sources.items() if source}
