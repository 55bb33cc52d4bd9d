"""What a training run leaves on disk.

    RUN/config.yaml                  the resolved configuration
    RUN/metrics.csv                  loss and speed by update
    RUN/checkpoints/step-000300/     300 updates done
        weights.safetensors          the trained parameters, by name in the UNet (or in the part's folder)
        trainer.pt                   optimiser, counters: what resuming needs
        manifest.json                written last: which files, and their sizes
    RUN/model/                       a whole model folder, where the run trained parts other than the UNet

`train` writes this; `live2diff.model.build.load_model` reads it, so that exporting needs no training code.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from live2diff.errors import CheckpointError

_STEP = re.compile(r"step-(\d+)$")


def checkpoints(run: str | Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first. One without a manifest is not complete and is left out."""
    found = [path for path in (Path(run) / "checkpoints").glob("step-*") if _STEP.search(path.name)]
    return sorted((path for path in found if _is_complete(path)), key=updates_of)


def updates_of(checkpoint: Path) -> int:
    match = _STEP.search(checkpoint.name)
    assert match
    return int(match[1])


def _is_complete(checkpoint: Path) -> bool:
    try:
        files = json.loads((checkpoint / "manifest.json").read_text())["files"]
        return all((checkpoint / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def run_config(run: Path) -> dict[str, Any]:
    """The resolved configuration of a run, as plain dicts. Raises CheckpointError."""
    from omegaconf import OmegaConf

    try:
        return OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))  # pyright: ignore
    except Exception as error:
        raise CheckpointError(f"{run / 'config.yaml'}: not readable as a run's configuration") from error
