"""Shared fixtures. Everything here runs on the CPU, without a network and with fixed seeds."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before any hub client is imported: a test never downloads
os.environ.setdefault("WANDB_MODE", "offline")

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real videos and traces that lie beside a development checkout; absent in a plain clone."""
    folder = ROOT.parent / "shared"
    if not (folder / "FACTS.md").exists():
        pytest.skip("needs the folder ../shared (real videos, traces), which is not part of a clone")
    return folder


@pytest.fixture(autouse=True)
def _seed() -> None:
    import torch

    torch.manual_seed(0)
