"""The figures of a row, scene by scene. What is measured is kept and not measured again."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from live2diff import __version__
from live2diff.errors import DataError
from live2diff.files import write_json
from live2diff.machine import describe
from live2diff.model.build import load_model
from live2diff.model.video_model import VideoModel
from live2diff.stream import Stream
from live2diff.stream.pipeline import StreamMask
from live2diff.terminal import progress
from train.ablate.folder import Folder
from train.ablate.measure import KINDS, Measure
from train.ablate.picture import keep_strip
from train.ablate.rows import Row
from train.ablate.scenes import TrueScene

Figures = dict[str, list[float]]  # by figure, one for each scene


def measure_row(
    folder: Folder, row: Row, seed: int, scenes: Sequence[TrueScene], measure: Measure, steps: Sequence[int]
) -> None:
    """Stream every scene through the row's model; write its figures, and frames of the first scene."""
    model = None if row.training is None else load_model(folder.run(row.training, seed))
    found: Figures = {name: [] for name in KINDS}
    what = row.label if model is None else f"{row.label}, seed {seed}"
    with progress(f"measuring {what}", len(scenes), "scenes") as advance:
        for scene in scenes:
            output = scene.truth if model is None else translate(model, scene, steps, row.mask)
            if scene is scenes[0]:
                keep_strip(folder.strip(row.key, seed), output)
            for name, value in measure(scene, output).items():
                found[name].append(value)
            advance()
    write_json(
        folder.measured(row.key, seed),
        {
            "row": row.key,
            "seed": seed,
            "scenes": [scene.seed for scene in scenes],
            "made_on": made_on(),
            # JSON has no infinity, which the truth's PSNR is.
            "values": {name: [_or_none(value) for value in values] for name, values in found.items()},
        },
    )


def translate(
    model: VideoModel, scene: TrueScene, steps: Sequence[int], mask: StreamMask | None = None
) -> np.ndarray:
    """The scene as a stream of `model` shows it: uint8 RGB (F, H, W, 3). Its noise is the scene's own."""
    stream = Stream(model, scene.caption, steps=tuple(steps), seed=scene.seed, mask=mask)
    done = [picture for frame in scene.source for picture in stream.push(frame)]
    return np.stack([*done, *stream.flush()])


def made_on() -> str:
    """What figures depend on beside settings and seeds, in one line."""
    machine = describe("torch")
    return (
        f"live2diff {__version__}, PyTorch {machine['versions']['torch']}, {machine['cpu']}, threads: "
        f"{torch.get_num_threads()}"
    )


def read_made_on(path: Path) -> str:
    """Of what `measure_row` wrote to `path`."""
    return str(json.loads(path.read_text(encoding="utf-8")).get("made_on", "not noted"))


def read_row(path: Path) -> dict[str, np.ndarray]:
    """By figure, the values of the scenes (N,); NaN where there is none. Raises DataError."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))["values"]
        return {name: np.array(values[name], dtype=np.float64) for name in KINDS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read; remove it, and run the same command again") from error


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
