"""Validation: the loss on clips that are not trained on, and what the stream makes of one of them.

The clips, their noise and the timesteps never change, so that the loss of two updates, or of two runs,
differs by their weights alone. The weights are those in training, also where a running mean is kept: an
export takes them unless it is told otherwise. Nothing here leaves a trace in the training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch

from live2diff.errors import UsageError
from train.checks import validates, validation_data
from train.columns import choose_parts
from train.module import Diffusion
from train.progress import update_is_complete
from train.shards import find_shards
from train.throughput import Throughput
from train.validation_clips import HeldClip, ValidationClips
from train.validation_video import Videos


class Validation(lightning.Callback):
    """Validates before the first update, every `validation.every` updates and after the last one.

    `trainer.callback_metrics` then holds `val_loss`, and `flicker` where there is a video, until the next
    update begins.

    Args:
        config: the whole configuration.
        clips: see `find_validation`.
        throughput: stands still meanwhile.
    """

    def __init__(self, config: Mapping[str, Any], clips: ValidationClips, throughput: Throughput):
        self._settings, self._clips, self._throughput = config["validation"], clips, throughput
        self._videos = Videos(Path(config["run_dir"]), self._settings, clips)
        self._held: list[HeldClip] | None = None  # this process's clips, encoded once

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if trainer.global_step == 0:
            self._validate(trainer, module)

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        for name in ("val_loss", "flicker"):
            trainer.callback_metrics.pop(name, None)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, *_: Any
    ) -> None:
        update = trainer.global_step
        due = update % self._settings["every"] == 0 or update == trainer.max_steps
        if due and update_is_complete(trainer):
            self._validate(trainer, module)

    def _validate(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, Diffusion)
        with self._throughput.paused(), undisturbed(module), module.frozen.whole():
            if self._settings["clips"]:
                trainer.callback_metrics["val_loss"] = self.loss(trainer, module)
            if trainer.is_global_zero:
                flicker = self._videos.render(trainer, module.model)
                if flicker is not None:
                    trainer.callback_metrics["flicker"] = torch.tensor(flicker)
            trainer.strategy.barrier("validation")

    def loss(self, trainer: lightning.Trainer, module: Diffusion) -> torch.Tensor:
        """The mean over clips and timesteps, float64: the same bits however many processes share the work."""
        count, world, rank = len(self._clips), trainer.world_size, trainer.global_rank
        # As many for every process: parameters that are spread over processes are gathered by all at once.
        turns = range(rank, -(-count // world) * world, world)
        times = torch.tensor(self._settings["timesteps"], device=module.device)
        if self._held is None:
            self._held = [self._clips.encode(turn % count, times.tolist(), module) for turn in turns]
        losses = torch.zeros(count, dtype=torch.float64, device=module.device)
        for turn, held in zip(turns, self._held, strict=True):
            loss = self._clip_loss(trainer, module, held, times)
            if turn < count:  # else another process counts this clip
                losses[turn] = loss
        return trainer.strategy.reduce(losses, reduce_op="sum").mean()

    def _clip_loss(
        self, trainer: lightning.Trainer, module: Diffusion, held: HeldClip, times: torch.Tensor
    ) -> torch.Tensor:
        """The loss of one clip at all timesteps, one batch whatever the batch of the training."""
        noise = held.noise.to(module.device)
        clean, depth, text = (
            None if part is None else part.to(module.device).expand(len(times), *part.shape[1:])
            for part in held.encoded
        )
        assert clean is not None and text is not None
        noisy = module.objective.noisy(clean, noise, times)
        target = module.objective.target(clean, noise, times)
        with trainer.precision_plugin.forward_context():
            predicted = module.predict(noisy, times, text, depth)
        return module.objective.losses(predicted, target, times).double().mean()


def find_validation(
    config: Mapping[str, Any], module: lightning.LightningModule, first: bool
) -> ValidationClips | None:
    """The clips that the configuration means; None where there is nothing to validate.

    Args:
        first: whether this process tells so.

    Raises:
        UsageError: columns of the split that do not fit, see `choose_parts`.
        DataError: the dataset's description is damaged.
    """
    settings = config["validation"]
    if not validates(config) or not isinstance(module, Diffusion):
        return None
    if max(settings["timesteps"]) >= module.objective.timesteps:
        raise UsageError(
            f"validation.timesteps={settings['timesteps']}: expected numbers below the model's "
            f"noise.timesteps={module.objective.timesteps}"
        )
    data = validation_data(config)
    if data is None:
        if first:
            path, split = config["data"]["path"], settings["split"]
            print(f"no validation: {path} has no clips in its split {split}", flush=True)
        return None
    parts = choose_parts(data, module.model, config["trainer"]["depth"])
    shards = find_shards(data["path"], data["split"])
    return ValidationClips(data, shards, parts, settings["clips"] or settings["videos"])


@contextmanager
def undisturbed(module: torch.nn.Module) -> Iterator[None]:
    """Evaluate without gradients; modes and random generators are afterwards what they were."""
    training = [part for part in module.modules() if part.training]
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        module.eval()
        try:
            yield
        finally:
            for part in training:
                part.training = True
