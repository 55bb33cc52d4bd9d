"""Saving checkpoints so that a kill at any moment leaves the last complete one (see `live2diff.runs`)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import CheckpointIO
from safetensors.torch import load_file, save_file

from live2diff.errors import CheckpointError
from live2diff.files import staged_folder, write_json
from live2diff.runs import checkpoints
from train.progress import update_is_complete


class FolderCheckpoints(CheckpointIO):
    """One folder a checkpoint: weights as safetensors, the trainer's state beside them, the manifest last.

    The folder is staged and renamed, so a path that exists is complete.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        state = dict(checkpoint)
        weights = {name: tensor.contiguous() for name, tensor in state.pop("state_dict").items()}
        with staged_folder(path) as stage:
            save_file(weights, stage / "weights.safetensors")
            torch.save(state, stage / "trainer.pt")
            files = {file.name: file.stat().st_size for file in sorted(stage.iterdir())}
            write_json(stage / "manifest.json", {"updates": state["global_step"], "files": files})

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        path = Path(path)
        try:
            state = torch.load(path / "trainer.pt", map_location="cpu", weights_only=True)
            return {**state, "state_dict": load_file(path / "weights.safetensors")}
        except Exception as error:
            raise CheckpointError(
                f"{path}: cannot be read; remove the folder to resume from the one before"
            ) from error

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path, ignore_errors=True)


class SaveCheckpoints(lightning.Callback):
    """Save every `every` updates and at the end; keep the newest `keep`.

    Old checkpoints are removed only after a newer one is complete.
    """

    def __init__(self, run: Path, every: int, keep: int):
        self.run, self.every, self.keep = run, every, keep
        self._saved = -1

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        updates = trainer.global_step
        due = updates % self.every == 0 or trainer.should_stop or updates == trainer.max_steps
        if due and update_is_complete(trainer):
            self._save(trainer)

    def _save(self, trainer: lightning.Trainer) -> None:
        if trainer.global_step == self._saved:
            return
        self._saved = trainer.global_step
        trainer.save_checkpoint(self.run / "checkpoints" / f"step-{trainer.global_step:06d}")
        if trainer.is_global_zero:
            for old in checkpoints(self.run)[: -self.keep]:
                shutil.rmtree(old, ignore_errors=True)
