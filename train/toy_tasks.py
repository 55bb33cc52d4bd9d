"""The tasks that make the toy world's downloads, see `live2diff/toy/weights/README.md`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import lightning

    from live2diff.model.video_model import VideoModel

TASKS = ("toy_vae", "toy_depth", "toy_image", "toy_cartoon", "toy_drawing")
_NEXT = {"toy_vae": "toy_image", "toy_image": "toy_cartoon"}


def toy_task(
    config: Mapping[str, Any], model: VideoModel
) -> tuple[lightning.LightningModule, lightning.LightningDataModule]:
    """The module that trains what the task is for, and rendered frames for it."""
    from train.toy_depth import ToyDepth
    from train.toy_frames import ToyFrames
    from train.toy_image import ToyImage
    from train.toy_vae import ToyVae

    trainer, optim, seed = config["trainer"], config["optim"], config["seed"]
    if trainer["task"] == "toy_vae":
        module = ToyVae(model, optim, seed)
    elif trainer["task"] == "toy_depth":
        module = ToyDepth(model, optim)
    else:
        module = ToyImage(model, trainer, optim, seed)
    return module, ToyFrames(module.pool, trainer, seed)


def choose_toy_parts(model: VideoModel, task: str) -> None:
    """Let gradients reach what a toy task trains, and nothing else."""
    from live2diff.interop.animatediff import is_spatial

    for part in (model.unet, model.vae, model.depth, model.text):
        part.requires_grad_(False)
    if task in ("toy_vae", "toy_depth"):
        (model.vae if task == "toy_vae" else model.depth).requires_grad_(True)
        return
    model.text.requires_grad_(task == "toy_image")
    for name, parameter in model.unet.named_parameters():
        parameter.requires_grad_(is_spatial(name))


def next_command(task: str, run: Path) -> str:
    """What usually follows a run of a toy task."""
    following = _NEXT.get(task)
    if following is None:
        return "make toy-weights, which packs what the toy tasks made"
    return f"live2diff train experiment={following} model.saved={run}"
