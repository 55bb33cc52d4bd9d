"""Fixtures of the data_prep tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from data_prep.config import PrepConfig, load_config
from live2diff.video import write_video


@pytest.fixture
def tiny() -> PrepConfig:
    """The `tiny` preset: 64 pixels, 8 fps, at least 16 frames."""
    return load_config(["prep=tiny"])


@pytest.fixture
def movie(tmp_path: Path) -> Callable[..., Path]:
    """movie(name, frames, fps=24) writes a video below the folder `videos` and returns its path."""

    def make(name: str, frames: Sequence[np.ndarray], fps: int = 24) -> Path:
        path = tmp_path / "videos" / name
        write_video(path, list(frames), fps)
        return path

    return make
