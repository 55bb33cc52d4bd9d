"""RUN/environment.json: with what, where and how a run was made; an entry for each time it was started.

Only what helps to make the run again is kept. Of the environment that is a list of names, and passwords in
addresses are left out: the file may be shown to others.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import live2diff
from live2diff.files import write_json
from live2diff.machine import describe

PACKAGES = (
    "torch", "lightning", "diffusers", "transformers", "peft", "safetensors", "numpy", "av",
    "opencv-python-headless", "hydra-core", "wandb",
)  # fmt: skip
VARIABLES = (
    "SLURM_JOB_ID", "SLURM_JOB_NAME", "SLURM_JOB_PARTITION", "SLURM_JOB_NODELIST", "SLURM_CLUSTER_NAME",
    "SLURM_NNODES", "SLURM_NTASKS", "SLURM_RESTART_COUNT", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID",
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "WANDB_MODE",
)  # fmt: skip
_PASSWORD = re.compile(r"(://)[^/@\s]*@")


def note_start(run: Path, overrides: Sequence[str], environ: Mapping[str, str] = os.environ) -> None:
    """Append this start to RUN/environment.json; a file that cannot be read is begun anew.

    Args:
        overrides: the `key=value` settings of the command line.
    """
    path = run / "environment.json"
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, KeyError, TypeError):
        starts = []
    before = starts if isinstance(starts, list) else []
    write_json(path, {"starts": [*before, _start(overrides, environ)]})


def _start(overrides: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _PASSWORD.sub(r"\1", shlex.join(["live2diff", "train", *overrides])),
        "host": os.uname().nodename,
        "git": git_state(Path(live2diff.__file__).parents[1]),
        **describe(*PACKAGES),
        "gpus": _gpus(),
        "driver": _driver(),
        "variables": {name: environ[name] for name in VARIABLES if name in environ},
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """`commit`, and `dirty`: whether any file differs from it; None where `folder` is no checkout."""
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):  # no git here, no commit yet, or a folder of someone else's
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=20
    )
    return done.stdout.strip()


def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def _driver() -> str | None:
    """NVIDIA's kernel driver."""
    try:
        first = Path("/proc/driver/nvidia/version").read_text().splitlines()[0]
    except (OSError, IndexError):
        return None
    version = re.search(r"\d+\.\d+(\.\d+)?", first)
    return version[0] if version else first
