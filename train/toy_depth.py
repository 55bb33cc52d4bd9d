"""The toy world's depth net, trained on rendered frames in all looks with their exact depth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F

from live2diff.model.video_model import VideoModel
from train.toy_frames import Pool, one_cycle, render_frames

_SCALE = 5.0  # inverse depth is about 0.2 in the toy world; near 1 the net's final ReLU stays alive
_POOL = 768  # scenes; each gives one frame in every look


class ToyDepth(lightning.LightningModule):
    """Trains `model.depth`; `finish` writes the whole model to RUN/model."""

    def __init__(self, model: VideoModel, optim: Mapping[str, Any]):
        super().__init__()
        self.model, self.optim = model, optim
        self.depth = model.depth.requires_grad_(True).train()

    def pool(self) -> Pool:
        """Images (N, 3, H, W) and their inverse depth (N, H, W)."""
        pool = render_frames(_POOL, self.model.settings.size)
        return {name: pool[name] for name in ("image", "inverse_depth")}

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        loss = F.l1_loss(self.depth(batch["image"]), _SCALE * batch["inverse_depth"])
        self.log("loss", loss.detach(), logger=False)
        return loss

    def configure_optimizers(self) -> Any:
        return one_cycle(self.depth.parameters(), self.optim, self.trainer.max_steps)

    def finish(self, run: Path) -> None:
        self.model.to("cpu")
        self.model.provenance["toy_depth"] = {"scenes": _POOL, "updates": self.trainer.global_step}
        self.model.save(run / "model")
