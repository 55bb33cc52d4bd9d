"""A small dataset with all there is to see: hostile names, cuts, dropped clips, near-duplicates, columns."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.build import build
from tests.data_prep.videos import blocks

HOSTILE_NAME = "<img src=x onerror=alert(1)>.mp4"
HOSTILE_CAPTION = '<script>alert("x")</script> & a "square"'


@pytest.fixture(scope="session")
def model(tmp_path_factory) -> Path:
    """A tiny, untrained model for the columns."""
    from omegaconf import OmegaConf

    from live2diff.config import compose
    from live2diff.model.build import build as build_model

    folder = tmp_path_factory.mktemp("looking") / "model"
    settings: Any = compose("train", ["data.path=none", "model.settings.size=[32,32]"]).model
    build_model(OmegaConf.to_container(settings), seed=0).save(folder)
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory, model: Path) -> Path:
    """The dataset; tests that change it take `copy`."""
    from live2diff.video import write_video

    folder = tmp_path_factory.mktemp("looking") / "videos"
    moving, still = blocks(60, 0), blocks(1, 21) * 60
    write_video(folder / "a square.mp4", moving, 24)
    (folder / "a square.txt").write_text("a square moves")
    write_video(folder / HOSTILE_NAME, blocks(60, 1), 24)
    (folder / HOSTILE_NAME).with_suffix(".txt").write_text(HOSTILE_CAPTION)
    write_video(folder / "again, lighter.mp4", [np.minimum(frame, 250) + 5 for frame in moving], 24)
    write_video(folder / "two shots.mp4", blocks(60, 10) + blocks(60, 11), 24)
    write_video(folder / "then still.mp4", blocks(60, 20) + still, 24)
    (folder / "page.mp4").write_text("<html>404</html>")
    out = folder.parent / "dataset"
    columns = ["columns=[latents,depth,text]", f"column_model={model}", "column_size=32"]
    settings = ["prep=tiny", "sources_per_shard=2", "val_fraction=0.2", "workers=1"]
    build([str(folder)], out, [*settings, "max_duplicate_distance=20", *columns])
    return out


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "dataset")


@pytest.fixture
def change() -> Callable[..., None]:
    """change(path, function) rewrites a JSON file with what `function` makes of it in place."""

    def apply(path: Path, function: Callable[[Any], Any]) -> None:
        data = json.loads(path.read_text())
        function(data)
        path.write_text(json.dumps(data))

    return apply
