"""Videos of a run in training: validation clips through the streaming engine, beside their input.

    RUN/validation/step-000500/KEY.mp4          input | depth | output
                               KEY-frames.png   a few frames of each
                               KEY-xt.png       one row of pixels of each over time (Live2Diff, Fig. 3)

Depth is there where the model is conditioned on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import lightning
import numpy as np
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import ModelParallelStrategy

from live2diff.errors import DataError
from live2diff.eval.flicker import flicker
from live2diff.files import staged_file
from live2diff.images import to_tensor, to_uint8
from live2diff.model.video_model import VideoModel
from live2diff.panels import enlarge, labelled, strip, xt_slice
from live2diff.stream.engine import Stream
from live2diff.video import write_video
from train.validation_clips import Footage, ValidationClips


class Videos:
    """Renders the first `validation.videos` clips on one process.

    Args:
        run: folder of the run.
        settings: the `validation` group of the configuration.
        clips: those that are validated.
    """

    def __init__(self, run: Path, settings: Mapping[str, Any], clips: ValidationClips):
        self._folder, self._settings, self._clips = run / "validation", settings, clips
        self._told = False  # why there is none

    def render(self, trainer: lightning.Trainer, model: VideoModel) -> float | None:
        """Translate the clips with the model as it is now, and show them to W&B where it listens.

        Returns:
            The mean flicker of the outputs, see `live2diff.eval.flicker`; None where nothing was rendered.

        Raises:
            SetupError: the disk is full or fails.
        """
        count = min(self._settings["videos"], len(self._clips))
        reason = _obstacle(trainer, model)
        if count and reason:
            if not self._told:
                print(f"no validation video: {reason}", flush=True)
            self._told = True
            return None
        folder = self._folder / f"step-{trainer.global_step:06d}"
        values, stems = [], []
        for number in range(count):
            try:
                footage = self._clips.footage(number, self._settings["video_frames"])
            except DataError as error:
                print(f"no validation video: {error}", flush=True)
                continue
            rows = translated(model, footage)
            _write(folder, footage, rows)
            values.append(flicker(rows["output"]))
            stems.append(folder / _file_name(footage))
            shown = f"flicker {values[-1]:.4f} (input {flicker(rows['input']):.4f})"
            print(f"validation video {stems[-1]}.mp4: {shown}", flush=True)
        _show(trainer, stems)
        return float(np.mean(values)) if values else None


def translated(model: VideoModel, footage: Footage) -> dict[str, np.ndarray]:
    """`input`, `depth` where the model takes it, and `output`: uint8 RGB (F, H, W, 3), in this order."""
    height, width = footage.frames[0].shape[:2]
    stream = Stream(model, footage.caption, size=(width, height))
    output = [done for frame in footage.frames for done in stream.push(frame)] + stream.flush()
    rows = {"input": np.stack(footage.frames)}
    if model.settings.uses_depth:
        # In the stream's own normalisation, which goes on for ever: the clip's is its beginning.
        raw = model.estimate_depth(to_tensor(rows["input"], model.device)[None])
        warmup = min(max(model.settings.streamed_warmup, 1), raw.shape[1])
        grey = model.settings.depth.normalise_clip(raw, warmup)
        rows["depth"] = to_uint8(grey.expand(3, -1, -1, -1))
    return rows | {"output": np.stack(output)}


def _obstacle(trainer: lightning.Trainer, model: VideoModel) -> str | None:
    if model.settings.mask == "bidirectional":
        return "a model trained with trainer.mask=bidirectional cannot be streamed"
    if isinstance(trainer.strategy, ModelParallelStrategy):
        return "with trainer.strategy=fsdp no process has the whole model"
    return None


def _write(folder: Path, footage: Footage, rows: Mapping[str, np.ndarray]) -> None:
    large = {name: enlarge(frames) for name, frames in rows.items()}
    pictures = (
        labelled({name: frames[at] for name, frames in large.items()}) for at in range(len(footage.frames))
    )
    name = _file_name(footage)
    write_video(folder / f"{name}.mp4", pictures, footage.fps)
    count, height = rows["input"].shape[:2]
    _save(
        folder / f"{name}-frames.png",
        labelled(
            {f"{name}, frames 0 to {count - 1}": strip(frames) for name, frames in large.items()},
            vertical=True,
        ),
    )
    middle = height // 2
    named = {
        f"{name}, row {middle}, time down": xt_slice(frames, frames.shape[1] // 2)
        for name, frames in large.items()
    }
    _save(folder / f"{name}-xt.png", labelled(named))


def _file_name(footage: Footage) -> str:
    """A key comes from a tar of anyone's: it must not lead out of the folder."""
    return re.sub(r"[^\w-]", "_", footage.key)


def _save(path: Path, picture: np.ndarray) -> None:
    with staged_file(path) as stage:
        cv2.imwrite(str(stage), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def _show(trainer: lightning.Trainer, stems: list[Path]) -> None:
    """As panels of W&B."""
    step = trainer.global_step
    for logger in trainer.loggers:
        if stems and isinstance(logger, WandbLogger):
            videos = [f"{stem}.mp4" for stem in stems]
            logger.log_video("validation/video", videos, step=step, format=["mp4"] * len(stems))
            for name in ("frames", "xt"):
                logger.log_image(f"validation/{name}", [f"{stem}-{name}.png" for stem in stems], step=step)
