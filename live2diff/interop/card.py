"""The model card of an export: what the model is, how it came to be, what holds of it, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from live2diff import toy
from live2diff.interop.certificate import FILE, summary
from live2diff.interop.licences import licence_of
from live2diff.model.folder import read_config, short_name
from live2diff.model.video_model import VideoModel
from live2diff.stream import Stream
from live2diff.stream.side_by_side import save_side_by_side

SAMPLE = "sample.png"
_SAMPLE_SIDE = 128  # pixels of the longer side at most: a picture of how the model behaves, at a low price
_SAMPLE_AFTER = 4  # frames after the warm-up
_SAMPLE_STRIDE = 0.25  # seconds between frames
_SHOWN = 8  # frames side by side


def model_card(model: VideoModel, folder: Path, name: str, certificate: Mapping[str, Any]) -> str:
    """Markdown about the model that lies in `folder` and will be called `name`."""
    config, settings = read_config(folder), model.settings
    width, height = settings.size
    parameters = sum(p.numel() for p in model.unet.parameters()) / 1e6
    depth = f"conditioned, normalised by {settings.depth.kind}" if settings.uses_depth else "not used"
    noise = settings.noise
    rows = {
        "UNet": f"{parameters:.1f} M parameters, stored as {short_name(config.dtype)}",
        "temporal mask": f"{settings.mask}, window {settings.window}, warm-up {settings.warmup} frames",
        "noise schedule": f"{noise.kind}, beta {noise.beta_start} to {noise.beta_end}",
        "depth": depth,
        "trained at": f"{width} x {height} pixels",
    }
    sections = [
        f"# {name}",
        "A causal video diffusion model: it translates video frame by frame, as it arrives."
        if settings.mask != "bidirectional"
        else "A bidirectional video diffusion model: a base to train on. It cannot stream.",
        _table(("", ""), rows.items()),
        *_sample(folder),
        "## Training",
        _training(model.provenance),
        *_metrics(model.provenance),
        "## What holds",
        f"{summary(certificate)}. Details are in `{FILE}`; `live2diff ckpt verify {name}` measures it again.",
        *_licences(model.provenance),
        "## Files",
        _table(
            ("file", "bytes", "SHA-256"),
            [
                (f"`{file}`", entry["bytes"], f"`{entry['sha256']}`")
                for file, entry in config.files.items()
                if file.endswith(".safetensors")
            ],
        ),
    ]
    if settings.mask != "bidirectional":
        sections += ["## Use", _SNIPPET.format(name=name)]
    return "\n\n".join(sections) + "\n"


_SNIPPET = """```python
from live2diff.images import cover
from live2diff.model.video_model import VideoModel
from live2diff.stream import Stream
from live2diff.video import VideoReader, write_video

model = VideoModel.load("{name}")  # .to("cuda") where there is a GPU
stream = Stream(model, prompt="...")
video = VideoReader("clip.mp4")
done = []
for frame in video:  # uint8 RGB arrays (H, W, 3)
    done += stream.push(cover(frame, stream.size))
done += stream.flush()
write_video("out.mp4", done, fps=video.fps)
```"""


def write_sample(model: VideoModel, folder: Path) -> None:
    """Stream a few frames of a toy scene through the model, and write them, input above output.

    A model that cannot stream gets no sample.
    """
    if model.settings.mask == "bidirectional":
        return
    scene, look = toy.Scene.sample(toy.SPLITS["test"]), "photo"
    size = _sample_size(model)
    times = [i * _SAMPLE_STRIDE for i in range(model.settings.streamed_warmup + _SAMPLE_AFTER)]
    frames = [toy.render(scene, t, size, look) for t in times]
    stream = Stream(model, toy.caption(scene, "cartoon"), size=size)
    done: list[np.ndarray] = []
    with torch.no_grad():
        for frame in frames:
            done += stream.push(frame)
        done += stream.flush()
    rows = (np.concatenate(row[-_SHOWN:], axis=1) for row in (frames, done))
    save_side_by_side(folder / SAMPLE, *rows)


def _sample_size(model: VideoModel) -> tuple[int, int]:
    """The trained size, shrunk to at most `_SAMPLE_SIDE`, in multiples of 8."""
    width, height = model.settings.size
    scale = min(1.0, _SAMPLE_SIDE / max(width, height))
    return max(8, round(width * scale / 8) * 8), max(8, round(height * scale / 8) * 8)


def _sample(folder: Path) -> list[str]:
    if not (folder / SAMPLE).is_file():
        return []
    return [f"![The last frames of a toy scene, input above output]({SAMPLE})"]


def _training(provenance: Mapping[str, Any]) -> str:
    lines = []
    for stage in _stages(provenance):
        trainer, optim = _dict(stage.get("trainer")), _dict(stage.get("optim"))
        lines.append(
            f"- **{_plain(stage.get('run'))}**: {stage.get('updates')} updates of "
            f"{trainer.get('batch')} x {trainer.get('accumulate')} clips per device, "
            f"{trainer.get('loss')} loss, {optim.get('kind')} at {optim.get('lr')}, "
            f"mask {trainer.get('mask')}, {'with' if trainer.get('depth') else 'without'} depth, "
            f"{stage.get('weights', 'raw')} weights; {_data(stage)}"
        )
    return "\n".join(lines) or "No training is recorded."


def _data(stage: Mapping[str, Any]) -> str:
    where, dataset = f"data `{_plain(_dict(stage.get('data')).get('path'))}`", _dict(stage.get("dataset"))
    if not dataset:
        return f"{where} (out of reach at export)"
    return (
        f"{where}: {dataset.get('clips')} clips, {dataset.get('frames')} frames, {dataset.get('seconds')} s, "
        f"made with settings {_plain(dataset.get('config_hash'))}"
    )


def _metrics(provenance: Mapping[str, Any]) -> list[str]:
    rows = [
        (_plain(metric.get("name")), metric.get("value"), f"`{_plain(metric.get('signature'))}`")
        for stage in [*_stages(provenance), provenance]
        for metric in _dicts(stage.get("metrics"))
    ]
    return ["## Metrics", _table(("metric", "value", "signature"), rows)] if rows else []


def _licences(provenance: Mapping[str, Any]) -> list[str]:
    sources = list(_dict(provenance.get("built_from")).items())
    for lora in _dicts(provenance.get("loras")):
        sources.append((f"LoRA at {lora.get('scale')}", lora.get("file")))
    if not sources:
        return []
    rows = [(_plain(part), f"`{_plain(source)}`", licence_of(str(source))) for part, source in sources]
    return [
        "## Built from",
        _table(("part", "source", "licence"), rows),
        "The licences are those the publishers state; they bind what is built on them too.",
    ]


def _stages(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    return _dicts(provenance.get("training"))


# Provenance may come from a foreign folder: only what has the right form is taken.


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _plain(value: Any) -> str:
    """One line that breaks neither a table nor a code span."""
    return " ".join(str(value).replace("|", "/").replace("`", "'").split())


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
