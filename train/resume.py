"""Running the same command again continues a run: from which checkpoint, and under which conditions."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any

from live2diff.errors import SetupError, UsageError
from live2diff.runs import checkpoints, damaged_file, read_manifest, run_config, updates_of

# What may change between a run and its continuation. Batch, processes and accumulation may as long as their
# product stays: see `check_effective_batch`.
_MAY_CHANGE = {
    "trainer": (
        "updates", "save_every", "keep", "log_every", "log_samples",
        "batch", "accumulate", "effective_batch", "devices", "accelerator", "profiler", "flops",
        "gradient_checkpointing", "compile", "strategy",
    ),
    "data": ("workers", "reader", "max_corrupt"),
    "validation": (),
    "logger": (),
    "run_dir": (),  # a folder may be moved, and be named in several ways
}  # fmt: skip


def newest_whole(run: Path) -> Path | None:
    """The newest checkpoint whose files still have the hashes of its manifest; says what it passes over."""
    for checkpoint in reversed(checkpoints(run)):
        try:
            damaged = damaged_file(checkpoint)
        except OSError as error:
            damaged = str(error)
        if damaged is None:
            return checkpoint
        print(f"warning: {checkpoint / damaged} is damaged; continuing from the checkpoint before it")
    return None


def set_aside(run: Path, found: Path | None) -> None:
    """Rename the checkpoints after `found`: they are damaged, and must not count as the newest ones."""
    for path in checkpoints(run):
        if found is None or updates_of(path) > updates_of(found):
            path.rename(path.with_name(f".damaged-{path.name}-{token_hex(4)}"))


def check_writable(run: Path) -> None:
    """Refuse a run folder that cannot be written to before any time is spent; leaves nothing behind.

    Raises:
        SetupError: it names the folder.
    """
    folder = existing(run / "checkpoints")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SetupError(f"{folder}: cannot be written ({error.strerror}); give another run_dir") from error


def existing(path: Path) -> Path:
    """The path, or the nearest one above it that is there."""
    return next(place for place in (path, *path.absolute().parents) if place.exists())


def check_effective_batch(checkpoint: Path, trainer: Mapping[str, Any], world: int) -> None:
    """Refuse to continue with another number of clips per update: the place in the data would be lost.

    Raises:
        UsageError: it names the accumulation that keeps it, if there is one.
    """
    manifest = read_manifest(checkpoint)
    if not manifest["updates"]:
        return
    before, per_step = manifest["samples"] // manifest["updates"], trainer["batch"] * world
    now = per_step * trainer["accumulate"]
    if now == before:
        return
    advice = f"set trainer.accumulate={before // per_step}"
    if before % per_step:
        advice = f"choose a trainer.batch and a number of processes that divide {before}"
    raise UsageError(
        f"trainer: {checkpoint.parents[1]} was trained with {before} clips per update, now {now} "
        f"({trainer['batch']} x {world} processes x {trainer['accumulate']}); {advice}"
    )


def pin_base(run: Path, config: dict[str, Any]) -> None:
    """Note exactly which weights a run builds on: a base that trains on must not change under it."""
    given = config["model"].get("saved")
    if given is None:
        return
    if checkpoints(run):
        before = Path(run_config(run)["model"].get("saved", ""))
        if Path(given) in (before, *before.parents):
            config["model"]["saved"] = str(before)
            return

    from live2diff.model.build import locate

    config["model"]["saved"] = str(locate(given))


def pin_columns(run: Path, config: dict[str, Any]) -> None:
    """A run that found out on its own which columns to read goes on with those."""
    if config["data"] and config["data"]["columns"] == "auto" and checkpoints(run):
        config["data"]["columns"] = run_config(run)["data"]["columns"]


def check_same_run(run: Path, config: dict[str, Any]) -> None:
    """Refuse to continue a run under another configuration: its results would be a mixture of both."""
    if not checkpoints(run):
        return
    old, new = _comparable(run_config(run)), _comparable(config)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise UsageError(
                f"{run}: was run with {key}={old.get(key)}, now {key}={new.get(key)}; "
                f"give another run_dir or remove the folder"
            )


def _comparable(config: dict[str, Any]) -> dict[str, Any]:
    flat = {}
    for group, values in config.items():
        if isinstance(values, dict) and _MAY_CHANGE.get(group) != ():
            flat |= {f"{group}.{k}": v for k, v in values.items() if k not in _MAY_CHANGE.get(group, ())}
        elif _MAY_CHANGE.get(group) != ():
            flat[group] = values
    return flat
