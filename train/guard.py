"""A gradient that is not finite must not reach the weights.

One such update is passed over: no weight and no optimiser state changes. Three in a row mean that the weights
or the data are broken, and the run stops; its last checkpoint is from before. Under fp16 a loss that was
scaled too high has the same effect: the scale falls until it fits, and only then do updates count.
"""

from __future__ import annotations

from typing import Any

import lightning
import torch

from live2diff.errors import DataError
from train.sharding import own_part

LIMIT = 3


class FiniteGuard(lightning.Callback):
    """Checks every update's gradient when it is summed over micro-steps and ranks, before it is clipped.

    Its counts go into the checkpoint: a run that goes on stops where one that never stopped would.

    Attributes:
        skipped: updates passed over since the run began.
    """

    def __init__(self) -> None:
        self.skipped = 0
        self._in_a_row = 0
        self._keys: list[str] = []  # of the update in work

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.skipped, self._in_a_row = state_dict["skipped"], state_dict["in_a_row"]

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, batch: Any, _: int
    ) -> None:
        self._keys += batch.get("key", []) if isinstance(batch, dict) else []

    def on_before_optimizer_step(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        gradients = [own_part(p.grad) for p in module.parameters() if p.grad is not None]
        finite = bool(torch.stack(torch._foreach_norm(gradients)).isfinite().all())
        keys, self._keys = self._keys, []
        # Summed gradients are the same on all ranks; the question costs little, and a hang would cost a lot.
        if trainer.strategy.reduce_boolean_decision(finite, all=True):
            self._in_a_row = 0
            return
        for parameter in module.parameters():
            parameter.grad = None  # the optimiser leaves such parameters and their state alone
        self.skipped += 1
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        self._in_a_row += scaler is None or scaler.get_scale() <= 1
        update = trainer.global_step + 1
        print(f"warning: update {update} is passed over, its gradient is not finite; clips: {_short(keys)}")
        if self._in_a_row == LIMIT:
            raise DataError(
                f"updates {update - LIMIT + 1} to {update}: the gradient is not finite; the last checkpoint "
                f"is from before; look at clips {_short(keys)}, or lower optim.lr"
            )


def _short(keys: list[str], count: int = 8) -> str:
    return ", ".join(keys[:count]) + (f" and {len(keys) - count} more" if len(keys) > count else "")
