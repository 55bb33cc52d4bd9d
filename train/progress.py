"""Where a run stands. Lightning counts micro-steps; what is saved, logged or stopped goes by updates."""

from __future__ import annotations

import lightning


def micro_steps(trainer: lightning.Trainer) -> int:
    """Micro-steps done since the run began, the current one included; for `on_train_batch_end`."""
    return trainer.fit_loop.total_batch_idx + 1


def update_is_complete(trainer: lightning.Trainer) -> bool:
    """Whether this micro-step was the last of its update. Before it, stopping would lose its gradients."""
    return micro_steps(trainer) % trainer.accumulate_grad_batches == 0
