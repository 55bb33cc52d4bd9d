"""Training of a model's UNet as Lightning sees it (Live2Diff, Sec. 3.2 and 3.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning
import torch
from torch.distributed.fsdp import FSDPModule

from live2diff.model.video_model import VideoModel
from train.encoding import Encoder
from train.frozen import Frozen
from train.noise import draw
from train.objective import Objective
from train.sharding import shard
from train.trainable import choose_trainable

OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class Diffusion(lightning.LightningModule):
    """Trains part of a model's UNet to denoise clips.

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
        choose_trainable(self.unet, trainer["trainable"], trainer["depth"])
        if trainer["gradient_checkpointing"]:
            self.unet.enable_gradient_checkpointing()
        # Not the module but its forward over clips: names stay as they are, and what a validation streams
        # through the same UNet is not compiled for every kind of step.
        self._compiled = torch.compile(self.unet.forward) if trainer["compile"] else None
        self.frozen = Frozen(self.unet, trainer)
        self.encode = Encoder(model, trainer["depth"])
        self.objective = Objective(model.settings.noise, trainer)
        self._losses: list[torch.Tensor] = []  # of the micro-steps of the update in work

    def configure_model(self) -> None:
        if self.device_mesh is not None and not isinstance(self.unet, FSDPModule):  # trainer.strategy=fsdp
            shard(self.unet, self.device_mesh["data_parallel"])

    def on_fit_start(self) -> None:
        self.model.to(self.device)
        self.unet.train()

    def on_train_batch_start(self, batch: Any, _: int) -> None:
        self.frozen.narrow()

    def on_train_end(self) -> None:
        self.frozen.widen()

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        loss = self.loss(batch)
        self._losses.append(loss.detach())
        return loss

    def loss(self, batch: dict[str, Any]) -> torch.Tensor:
        """Mean loss of a batch from `train.data.Clips`."""
        shape = self.encode.latent_shape(batch)
        timestep, noise, posterior = draw(
            batch["seed"], shape, self.objective.timesteps, self.device, self.config["offset_noise"]
        )
        # The frozen nets and the noising compute in float32 as in streaming, also under mixed precision.
        with torch.autocast(self.device.type, enabled=False):
            clean, depth, text = self.encode(batch, posterior)
            noisy = self.objective.noisy(clean, noise, timestep)
            target = self.objective.target(clean, noise, timestep)
        predicted = self.predict(noisy, timestep, text, depth)
        return self.objective.losses(predicted, target, timestep).mean()

    def predict(
        self,
        noisy: torch.Tensor,
        timestep: torch.Tensor,
        text: torch.Tensor,
        depth: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """What the UNet says about noisy clips (B, C, F, h, w) under the mask that is trained."""
        mask = self.config["mask"]
        self.unet._clip_view(mask, noisy)  # made here and kept: what is compiled only finds it
        # A validation, with other sizes, would have the training compiled anew, and for any size.
        unet = self._compiled if self._compiled and self.unet.training else self.unet
        return unet(noisy, timestep, text, depth, mask)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # The mean over the whole effective batch, not the last micro-step's.
        self.log("loss", torch.stack(self._losses).mean(), logger=False, sync_dist=True)
        self._losses.clear()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        betas = tuple(self.optim["betas"])
        return OPTIMISERS[self.optim["kind"]](
            self._trained(),
            lr=self.optim["lr"],
            betas=betas,
            weight_decay=self.optim["weight_decay"],
            # One pass over parameters and moments, not one for each operation. Under fp16 it would take
            # over the unscaling of gradients, which are to be clipped before.
            fused=self.config["precision"] != "16-mixed",
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm, as Lightning would: it does not trust fused optimisers with unscaled gradients."""
        if gradient_clip_val:
            torch.nn.utils.clip_grad_norm_(self._trained(), gradient_clip_val)

    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.unet.parameters() if parameter.requires_grad]

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """The trained parameters, by their names in the UNet."""
        return {name: p.detach() for name, p in self.unet.named_parameters() if p.requires_grad}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        return self.unet.load_state_dict(state_dict, strict=False)
