"""Our own kernels, each beside the plain PyTorch that it must equal. Triton is imported when one is used."""

from __future__ import annotations

import importlib.util
import os

import torch

from live2diff.errors import SetupError


def check_triton(device: torch.device) -> None:
    """Raises SetupError: Triton's kernels cannot run on `device`."""
    if importlib.util.find_spec("triton") is None:
        raise SetupError("kernel=triton: triton is not installed; install it or leave it out")
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"  # for tests
    if device.type != "cuda" and not interpreted:
        raise SetupError(f"kernel=triton: needs a GPU, the model is on {device.type}; leave it out")
