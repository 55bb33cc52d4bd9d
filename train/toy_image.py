"""The toy world's Stable Diffusion and its DreamBooths: pictures and captions, no motion.

    toy_image       from nothing: text encoder and image UNet, on all looks
    toy_cartoon     the image UNet goes on with one style alone, and forgets the others
    toy_drawing

Frames are rendered and encoded once, and batches are drawn from their latents. The UNet is trained as the
image model it is, diffusers' `UNet2DConditionModel`, on the same parameters: its motion modules have no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import lightning
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from live2diff import toy
from live2diff.interop.animatediff import is_spatial
from live2diff.model import vae as vae_io
from live2diff.model.text import TextEncoder, character_tokenizer
from live2diff.model.unet import CausalUNet
from live2diff.model.video_model import VideoModel
from live2diff.toy.words import merges
from train.noise import sample_seed
from train.objective import Objective
from train.toy_frames import Pool, one_cycle, render_frames

LOOKS = {"toy_image": tuple(toy.LOOKS), "toy_cartoon": ("cartoon",), "toy_drawing": ("drawing",)}
_POOL = 2560  # frames of each look
_EMPTY = 0.05  # share of captions that are left out


class ToyImage(lightning.LightningModule):
    """Trains the image half of `model.unet`, in `toy_image` a text encoder, too, into RUN/model."""

    def __init__(self, model: VideoModel, trainer: Mapping[str, Any], optim: Mapping[str, Any], seed: int):
        super().__init__()
        self.model, self.config, self.optim, self.seed = model, trainer, optim, seed
        if trainer["task"] == "toy_image":
            model.text = _new_text(model, seed)
            _silence_motion(model.unet)
            self.text = model.text.model.requires_grad_(True).train()
        self.image = image_half(model.unet).requires_grad_(True).train()
        self.objective = Objective(model.settings.noise, trainer)

    def pool(self) -> Pool:
        """Latents (N, C, h, w) and tokens (N, S) of all frames."""
        frames = render_frames(_POOL, self.model.settings.size, LOOKS[self.config["task"]])
        with torch.no_grad():
            latents = [vae_io.encode(self.model.vae, images) for images in frames["image"].split(64)]
        return {"latents": torch.cat(latents), "tokens": self.model.text.tokens(frames["caption"])}

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        clean, tokens, count = batch["latents"], batch["tokens"], len(batch["tokens"])
        # Seeded by the micro-step, on the CPU: a resumed run draws what an uninterrupted one would.
        source = torch.Generator().manual_seed(sample_seed(self.seed, 0, str(batch["index"])))
        # Spread over the schedule: small batches then differ less in how hard they are. Half of the timesteps
        # are below 354: streams enter at 399, and above 600 there is next to nothing to see.
        spread = (torch.arange(count) + torch.rand(count, generator=source)) / count
        timestep = (spread**1.5 * self.objective.timesteps).long()
        noise = torch.randn(clean.shape, generator=source)
        noise += self.config["offset_noise"] * torch.randn(*clean.shape[:2], 1, 1, generator=source)
        empty = torch.rand(count, 1, generator=source) < _EMPTY
        tokens = torch.where(empty, self.model.text.tokens([""]), tokens)
        # `text` is frozen but for `toy_image`.
        states = self.model.text.model(tokens).last_hidden_state
        predicted = self.image(self.objective.noisy(clean, noise, timestep), timestep, states).sample
        target = self.objective.target(clean, noise, timestep)
        loss = self.objective.losses(predicted, target, timestep).mean()
        self.log("loss", loss.detach(), logger=False)
        return loss

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return one_cycle(trained, self.optim, self.trainer.max_steps)

    def finish(self, run: Path) -> None:
        task = self.config["task"]
        self.model.to("cpu")
        self.model.provenance[task] = {
            "frames": _POOL * len(LOOKS[task]),
            "updates": self.trainer.global_step,
        }
        self.model.save(run / "model")


def image_half(unet: CausalUNet) -> UNet2DConditionModel:
    """The image model inside `unet`: one of its own kind, with the same parameters."""
    sizes = {
        name: unet.config[name]
        for name in ("block_out_channels", "layers_per_block", "norm_num_groups", "cross_attention_dim")
    }
    with torch.device("meta"):
        image = UNet2DConditionModel(
            down_block_types=tuple(kind.replace("Motion", "2D") for kind in unet.config["down_block_types"]),
            up_block_types=tuple(kind.replace("Motion", "2D") for kind in unet.config["up_block_types"]),
            attention_head_dim=unet.config["num_attention_heads"],  # what diffusers calls it in images' UNets
            in_channels=unet.config["in_channels"],
            out_channels=unet.config["out_channels"],
            **sizes,
        )
    for name, parameter in unet.named_parameters():
        if is_spatial(name):
            owner, _, leaf = name.rpartition(".")
            setattr(image.get_submodule(owner), leaf, parameter)
    left = [name for name, parameter in image.named_parameters() if parameter.is_meta]
    assert not left, left
    return image


def _new_text(model: VideoModel, seed: int) -> TextEncoder:
    """A text encoder as large as the model's, that reads whole words of the toy world."""
    tokenizer, settings, old = character_tokenizer(merges()), model.settings.text, model.text.model.config
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    sizes = {**old.to_dict(), **special, "vocab_size": len(tokenizer)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text = CLIPTextModel(CLIPTextConfig(**{**sizes, "max_position_embeddings": settings.max_length}))
    return TextEncoder(tokenizer, text, settings)


def _silence_motion(unet: CausalUNet) -> None:
    """Let the motion modules add nothing until they are trained, as AnimateDiff's do at first."""
    for module, _ in unet.temporal:
        for parameter in cast(nn.Module, module.proj_out).parameters():
            nn.init.zeros_(parameter)
