"""Which device a setting means."""

from __future__ import annotations

import re

import torch

from live2diff.errors import SetupError, UsageError

DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")


def find_device(name: str, setting: str) -> torch.device:
    """The device called `name`: "cpu", "cuda", "cuda:N", or "auto", a GPU where there is one.

    Raises:
        UsageError: another name; `setting` is named as what to change.
        SetupError: there is none such here.
    """
    if not DEVICE.fullmatch(name):
        raise UsageError(f"{setting}={name}: expected auto, cpu, cuda or cuda:N")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # the latter from a torch built without CUDA
        raise SetupError(f"{setting}={name}: no such device here; use auto or cpu") from error
