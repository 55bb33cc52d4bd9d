"""A running mean of the trained parameters, which is often the better model.

    mean <- d * mean + (1 - d) * parameter,   d = min(decay, (1 + n) / (10 + n)) at update n

The warm-up of d keeps the random start from weighing on the mean for thousands of updates. Only trained
parameters are kept; Lightning's own averaging copies the whole model.
"""

from __future__ import annotations

from typing import Any

import lightning
import torch

from train.progress import update_is_complete
from train.sharding import like, own_part


class Ema(lightning.Callback):
    """Averages after every update.

    Attributes:
        mean: float32 tensors by parameter name, on the parameters' device.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self.mean: dict[str, torch.Tensor] = {}

    def setup(self, trainer: lightning.Trainer, module: lightning.LightningModule, stage: str) -> None:
        self.mean = {name: value.float().clone() for name, value in module.state_dict().items()}

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        now = module.state_dict()
        self.mean = {name: like(value.to(now[name].device), now[name]) for name, value in self.mean.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, *_: Any
    ) -> None:
        if not update_is_complete(trainer):
            return
        updates = trainer.global_step
        decay = min(self.decay, (1 + updates) / (10 + updates))
        now = module.state_dict()
        means = [own_part(mean) for mean in self.mean.values()]
        torch._foreach_lerp_(means, [own_part(now[name]).float() for name in self.mean], 1 - decay)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint["ema"] = dict(self.mean)

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.mean = {name: value.clone() for name, value in checkpoint["ema"].items()}
