"""Which device a setting means."""

from __future__ import annotations

import torch

from live2diff.errors import SetupError


def find_device(name: str, setting: str) -> torch.device:
    """The device called `name`: "cpu", "cuda", "cuda:N", or "auto", a GPU where there is one.

    Raises:
        SetupError: there is none such here; `setting` is named as what to change.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # the latter from a torch built without CUDA
        raise SetupError(f"{setting}={name}: no such device here; use auto or cpu") from error
