"""The diffusion objective (Live2Diff, Sec. 3.2 and 3.4; FACTS of the recipe stand beside each choice)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

from live2diff.errors import UsageError
from live2diff.model.video_model import VideoModel
from train.encoding import Encoder
from train.noise import draw

LOSSES = {"l1": F.l1_loss, "mse": F.mse_loss}
OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class Diffusion(lightning.LightningModule):
    """Trains part of a model's UNet to predict the noise in clips.

    Only the trained parameters are the module's state: a checkpoint holds nothing else of the model.

    Args:
        model: the model to train; its VAE, text encoder and depth net stay as they are.
        trainer: the `trainer` group of the configuration.
        optim: the `optim` group.
    """

    # A checkpoint lacks the frozen parameters on purpose.
    strict_loading = False  # pyright: ignore[reportAssignmentType]

    def __init__(self, model: VideoModel, trainer: Mapping[str, Any], optim: Mapping[str, Any]):
        super().__init__()
        self.model, self.config, self.optim = model, trainer, optim
        self.unet = model.unet
        choose_trainable(self.unet, trainer["trainable"])
        if trainer["gradient_checkpointing"]:
            self.unet.enable_gradient_checkpointing()
        self.encode = Encoder(model, trainer["depth"])
        self.schedule = DDPMScheduler(**model.settings.noise.scheduler_config())
        self._losses: list[torch.Tensor] = []  # of the micro-steps of the update in work

    def on_fit_start(self) -> None:
        self.model.to(self.device)
        self.unet.train()

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        loss = self.loss(batch)
        self._losses.append(loss.detach())
        return loss

    def loss(self, batch: dict[str, Any]) -> torch.Tensor:
        """Mean loss of a batch from `train.data.Clips`."""
        shape = self.encode.latent_shape(batch)
        timestep, noise, posterior = draw(batch["seed"], shape, len(self.schedule), self.device)
        # The frozen nets and the noising compute in float32 as in streaming, also under mixed precision.
        with torch.autocast(self.device.type, enabled=False):
            clean, depth, text = self.encode(batch, posterior)
            noisy = self.schedule.add_noise(clean, noise, timestep)  # pyright: ignore[reportArgumentType]
        eps = self.unet(noisy, timestep, text, depth, self.config["mask"])
        return LOSSES[self.config["loss"]](eps.float(), noise)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # The mean over the whole effective batch, not the last micro-step's.
        self.log("loss", torch.stack(self._losses).mean(), logger=False, sync_dist=True)
        self._losses.clear()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.unet.parameters() if parameter.requires_grad]
        betas = tuple(self.optim["betas"])
        return OPTIMISERS[self.optim["kind"]](
            trained, lr=self.optim["lr"], betas=betas, weight_decay=self.optim["weight_decay"]
        )

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """The trained parameters, by their names in the UNet."""
        return {name: p.detach() for name, p in self.unet.named_parameters() if p.requires_grad}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        return self.unet.load_state_dict(state_dict, strict=False)


def choose_trainable(module: torch.nn.Module, patterns: list[str]) -> None:
    """Let gradients reach exactly the parameters whose name contains one of `patterns`; [""] means all.

    Raises:
        UsageError: a pattern that matches nothing.
    """
    names = [name for name, _ in module.named_parameters()]
    for pattern in patterns:
        if not any(pattern in name for name in names):
            raise UsageError(f"trainer.trainable: {pattern!r} is in no parameter's name (e.g. {names[0]})")
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(any(pattern in name for pattern in patterns))
