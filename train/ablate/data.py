"""What rows are trained on: cartoons of the toy world as shards, with what the frozen nets make of them.

OUT/data/videos/    rendered, H.264, with captions
OUT/data/model/     the model of the package that the columns are made with
OUT/data/shards/    the dataset
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any

from live2diff import toy
from live2diff.columns import COLUMNS
from train.ablate.folder import Folder
from train.ablate.rows import quoted
from train.ablate.scenes import FPS, LOOK
from train.ablate.settings import AblateSettings

if TYPE_CHECKING:
    from live2diff.model.video_model import VideoModel

# `data_prep.build.build(sources, out, overrides)`. It is handed in: training and preparation do not import
# each other.
Build = Callable[[Sequence[str], str, Sequence[str]], Any]


def make_data(folder: Folder, settings: AblateSettings, build_dataset: Build) -> None:
    """Make the dataset, unless it is there; goes on with one that was interrupted."""
    if (folder.dataset / "dataset.json").exists():
        return
    print(f"making {settings.clips} cartoon clips in {folder.data}", flush=True)
    videos, model = folder.data / "videos", folder.data / "model"
    toy.write_videos(videos, settings.clips, seconds=settings.seconds, fps=FPS, look=LOOK, depth=False)
    if not model.exists():
        toy_model().save(model)
    # Columns: the rows differ in nothing that the frozen nets make, so it is made once.
    columns = [f"columns=[{','.join(COLUMNS)}]", f"column_model={quoted(model)}"]
    with redirect_stdout(io.StringIO()):  # a line for every video
        build_dataset([str(videos)], str(folder.dataset), ["prep=tiny", "val_fraction=0", *columns])


def toy_model(*overrides: str) -> VideoModel:
    """The model that comes with the package, of `conf/model/toy.yaml`."""
    from live2diff.model.build import build
    from train.settings import load_config

    return build(load_config(["model=toy", "data.path=none", *overrides])["model"])
