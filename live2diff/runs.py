"""What a training run leaves on disk.

    RUN/config.yaml                  the resolved configuration
    RUN/metrics.csv                  loss and speed by update
    RUN/lease.json                   which process trains here; gone when it ends (`train.lease`)
    RUN/checkpoints/step-000300/     300 updates done
        weights.safetensors          the trained parameters, by name in the UNet (or in the part's folder)
        ema.safetensors              their running mean, where one is kept
        trainer.pt                   optimiser, counters: what resuming needs
        rank-0000.pt                 one per process: states of its random generators
        manifest.json                written last: updates, samples, processes; size and hash of each file
    RUN/checkpoints/.used-step-000300-1a2b3c4d    another run builds on that one: it is kept (`train.pins`)
    RUN/model/                       a whole model folder, where the run trained parts other than the UNet

`train` writes this; `live2diff.model.build.load_model` reads it, so that exporting needs no training code.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from live2diff.errors import CheckpointError

_STEP = re.compile(r"step-(\d+)$")


def checkpoints(run: str | Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first. One without a manifest is not complete and is left out."""
    return sorted(filter(is_checkpoint, (Path(run) / "checkpoints").glob("step-*")), key=updates_of)


def updates_of(checkpoint: Path) -> int:
    match = _STEP.search(checkpoint.name)
    assert match
    return int(match[1])


def is_checkpoint(checkpoint: Path) -> bool:
    """Whether the folder is a complete checkpoint: named as one, its manifest written, every file whole."""
    if not _STEP.search(checkpoint.name):
        return False
    try:
        files = read_manifest(checkpoint)["files"]
        return all((checkpoint / name).stat().st_size == facts["bytes"] for name, facts in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's manifest. Raises OSError or ValueError when there is none that can be read."""
    manifest = json.loads((checkpoint / "manifest.json").read_text(encoding="utf-8"))
    if not isinstance(manifest, dict):
        raise ValueError("not a table")
    return manifest


def damaged_file(checkpoint: Path) -> str | None:
    """Name of the first file that no longer has the hash in the manifest of a complete checkpoint."""
    for name, facts in read_manifest(checkpoint)["files"].items():
        with open(checkpoint / name, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != facts["sha256"]:
                return name
    return None


def run_config(run: Path) -> dict[str, Any]:
    """The resolved configuration of a run, as plain dicts. Raises CheckpointError."""
    from omegaconf import OmegaConf

    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
        groups = all(isinstance(config[key], dict) for key in ("model", "trainer", "optim"))
    except Exception as error:
        raise CheckpointError(f"{run / 'config.yaml'}: not readable as a run's configuration") from error
    if not groups:
        raise CheckpointError(f"{run / 'config.yaml'}: not a run's configuration")
    return config
