"""Saving checkpoints so that a kill at any moment leaves the last complete one (see `live2diff.runs`).

A checkpoint is made in a hidden folder beside its place, and takes its name when it is whole:

    every rank    writes its own file, then goes on training
    rank 0        copies weights and optimiser to main memory, then goes on training
    its writer    (a thread) writes the copies, waits for the other ranks' files, flushes everything to disk,
                  writes the manifest with the hashes, renames the folder, and only then removes older ones
"""

from __future__ import annotations

import hashlib
import math
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.distributed as distributed
from lightning.fabric.plugins import CheckpointIO
from safetensors.torch import load_file, save_file

from live2diff.errors import CheckpointError, SetupError
from live2diff.files import fsync, write_json
from live2diff.runs import checkpoints, read_manifest
from train.lease import check_lease
from train.pins import is_pinned
from train.progress import update_is_complete
from train.rank_state import file_name, load_rank_state, save_rank_state
from train.sharding import main_memory
from train.writer import BackgroundWriter

_RANK_SECONDS = 600  # how long rank 0 waits for the others' small files before it gives the checkpoint up
_LAST_SECONDS = 10  # the same once the training has failed: a rank that is gone writes nothing
_TENSORS = {"state_dict": "weights.safetensors", "ema": "ema.safetensors"}  # apart from the trainer's state


class FolderCheckpoints(CheckpointIO):
    """Lightning's way in and out: one folder a checkpoint (`live2diff.runs`). Saving returns at once.

    `storage_options` of a save are the manifest's facts: `updates`, `world`, and others to be kept.
    """

    def __init__(self, keep: int):
        self.keep = keep
        self.writer = BackgroundWriter()
        self.hurry = threading.Event()  # set when the training failed: another rank may be gone

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.writer.submit(self._write, main_memory(checkpoint), Path(path), storage_options)

    def _write(self, checkpoint: dict[str, Any], path: Path, facts: dict[str, Any]) -> None:
        stage = stage_of(path)
        size = _bytes_of(checkpoint)
        try:
            stage.mkdir(parents=True, exist_ok=True)
            for key, name in _TENSORS.items():
                if key in checkpoint:
                    save_file(checkpoint.pop(key), stage / name)
            torch.save(checkpoint, stage / "trainer.pt")
            _wait_for([stage / file_name(rank) for rank in range(facts["world"])], self.hurry)
            commit(stage, path, facts)
        except CheckpointError:
            raise
        except Exception as error:  # the writers of tensors have errors of their own for a full disk
            raise _unwritable(path, size, error) from error
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        prune(path.parents[1], self.keep)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        path = Path(path)
        try:
            state = torch.load(path / "trainer.pt", map_location="cpu", weights_only=True)
            tensors = {
                key: load_file(path / name) for key, name in _TENSORS.items() if (path / name).exists()
            }
            return {**state, **tensors}
        except Exception as error:
            raise CheckpointError(
                f"{path}: cannot be read; remove the folder to resume from the one before"
            ) from error

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path, ignore_errors=True)


class SaveCheckpoints(lightning.Callback):
    """Save every `every` updates and at the end.

    Args:
        run: folder of the run.
        every: updates between checkpoints.
        io: what writes them.
        resumed: the checkpoint that this process continues from, if any.
        effective_batch: clips per update; with the number of updates it is the place in the data.
    """

    def __init__(
        self, run: Path, every: int, io: FolderCheckpoints, resumed: Path | None, effective_batch: int
    ):
        self.run, self.every, self.io, self.resumed = run, every, io, resumed
        self.effective_batch = effective_batch
        self._saved = -1

    def setup(self, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:
        check_same_checkpoint(self.run, self.resumed)
        if trainer.is_global_zero:
            for stale in (self.run / "checkpoints").glob(".staged-*"):  # of a start that was killed
                shutil.rmtree(stale, ignore_errors=True)
        trainer.strategy.barrier()

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Lightning counts micro-steps. With another number of processes an update has more or fewer of them.
        done = checkpoint["global_step"] * trainer.accumulate_grad_batches
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for counts in (progress["total"], progress["current"]):
            counts.update(dict.fromkeys(counts, done))

    def on_train_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if self.resumed is not None and (self.resumed / file_name(trainer.global_rank)).exists():
            load_rank_state(self.resumed / file_name(trainer.global_rank))

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self.io.writer.check()
        updates = trainer.global_step
        due = updates % self.every == 0 or trainer.should_stop or updates == trainer.max_steps
        if due and update_is_complete(trainer) and updates != self._saved:
            self._saved = updates
            self._save(trainer, updates)

    def on_train_end(self, *_: Any) -> None:
        self.io.writer.wait()

    def _save(self, trainer: lightning.Trainer, updates: int) -> None:
        path = self.run / "checkpoints" / f"step-{updates:06d}"
        if trainer.is_global_zero:
            check_lease(self.run)
        try:
            stage_of(path).mkdir(parents=True, exist_ok=True)
            save_rank_state(stage_of(path) / file_name(trainer.global_rank))
        except OSError as error:
            most = [trainer.lightning_module.state_dict(), *(each.state for each in trainer.optimizers)]
            raise _unwritable(path, _bytes_of(most), error) from error
        facts: dict[str, Any] = {
            "updates": updates,
            "micro_steps": trainer.fit_loop.total_batch_idx + 1,
            "samples": updates * self.effective_batch,
            "world": trainer.world_size,
        }
        score = trainer.callback_metrics.get("val_loss")
        if score is not None:
            facts["val_loss"] = float(score)
        trainer.save_checkpoint(path, storage_options=facts)


def check_same_checkpoint(run: Path, resumed: Path | None) -> None:
    """Refuse to continue from a checkpoint that not all processes have found; every process has to call it.

    Each looks for itself, and a network disk may show one machine what it does not yet show another.

    Raises:
        SetupError: on all of them; it names two that differ.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    found: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, resumed.name if resumed else "no checkpoint")
    for rank, name in enumerate(found):
        if name != found[0]:
            raise SetupError(
                f"{run / 'checkpoints'}: rank 0 sees {found[0]}, rank {rank} sees {name}; the disk has not "
                "shown all machines the same yet: run the same command again in a minute"
            )


def stage_of(path: Path) -> Path:
    """Where the checkpoint `path` is made; all ranks agree on it without talking."""
    return path.with_name(f".staged-{path.name}")


def commit(stage: Path, path: Path, facts: Mapping[str, Any]) -> None:
    """Give a complete staged folder its name: everything on disk first, the manifest last."""
    files = {}
    for file in sorted(stage.iterdir()):
        file.chmod(stage.stat().st_mode & 0o666)  # safetensors makes its own unreadable for others
        fsync(file)
        with open(file, "rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        files[file.name] = {"bytes": file.stat().st_size, "sha256": digest}
    write_json(stage / "manifest.json", {**facts, "files": files})
    if path.exists():  # an incomplete or damaged one, or it would have been continued from
        shutil.rmtree(path)
    stage.rename(path)
    fsync(path.parent)


def prune(run: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep`, the best by validation loss, and what is pinned."""
    found = checkpoints(run)
    scored = [(read_manifest(path).get("val_loss"), path) for path in found]
    scored = [(score, path) for score, path in scored if score is not None and math.isfinite(score)]
    best = min(scored, default=(None, None))[1]
    for old in found[:-keep]:
        if old != best and not is_pinned(old):
            shutil.rmtree(old, ignore_errors=True)


def _wait_for(files: list[Path], hurry: threading.Event) -> None:
    end = time.monotonic() + _RANK_SECONDS
    while absent := [file for file in files if not file.exists()]:
        if hurry.is_set():
            end = min(end, time.monotonic() + _LAST_SECONDS)
            hurry = threading.Event()
        if time.monotonic() > end:
            raise CheckpointError(f"{absent[0]}: rank did not write its part; the checkpoint is given up")
        time.sleep(0.05)


def _bytes_of(value: Any) -> int:
    """Of all tensors in any nesting."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return sum(map(_bytes_of, items))


def _unwritable(path: Path, size: int, error: Exception) -> SetupError:
    reason = getattr(error, "strerror", None) or (str(error).strip() or type(error).__name__).splitlines()[0]
    try:
        free = f"{shutil.disk_usage(path.parent).free / 1e6:,.1f} MB are free"
    except OSError:
        free = "its disk does not answer"
    need = math.ceil(size / 1e5) / 10
    return SetupError(
        f"{path}: cannot be written ({reason}); it needs {need:,.1f} MB, {free}; the checkpoint before is "
        "whole: mend this and run the same command again"
    )
