"""A training run -> a folder that loads in one call, with a model card."""

from __future__ import annotations

from pathlib import Path

from live2diff import __version__
from live2diff.errors import UsageError
from live2diff.model.build import load_model
from live2diff.model.video_model import VideoModel, is_model_folder


def export(run: str | Path, out: str | Path, *, overwrite: bool = False) -> VideoModel:
    """Write the model of `run`'s newest checkpoint to the folder `out`, staged, and return it.

    Raises:
        UsageError: `out` exists and `overwrite` is not set.
        CheckpointError: there is no complete checkpoint, or what it was built on is gone.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists already; choose another folder or add --overwrite")
    if out.exists() and not is_model_folder(out):
        raise UsageError(f"{out}: is not an export; --overwrite replaces nothing else")
    model = load_model(run)
    model.provenance["exported_by"] = f"live2diff {__version__}"
    model.save(out, card=model_card(model, out.name))
    return model


def model_card(model: VideoModel, name: str) -> str:
    """Markdown: what the model is, how it was trained, how to use it."""
    settings = model.settings
    width, height = settings.size
    parameters = sum(p.numel() for p in model.unet.parameters()) / 1e6
    depth = f"conditioned, normalised by {settings.depth.kind}" if settings.uses_depth else "not used"
    noise = settings.noise
    return f"""# {name}

A causal video diffusion model: it translates video frame by frame, as it arrives.

| | |
|---|---|
| UNet | {parameters:.1f} M parameters |
| temporal mask | {settings.mask}, window {settings.window}, warm-up {settings.warmup} frames |
| noise schedule | {noise.kind}, beta {noise.beta_start} to {noise.beta_end} |
| depth | {depth} |
| trained at | {width} x {height} pixels |

## Training

{_training(model)}

## Use

```python
from live2diff.model.video_model import VideoModel
from live2diff.stream import Stream

stream = Stream(VideoModel.load("{name}"), prompt="...")
for frame in frames:  # uint8 RGB (H, W, 3)
    done = stream.push(frame)  # the finished frames, oldest first
done = stream.flush()
```
"""


def _training(model: VideoModel) -> str:
    lines = []
    for stage in model.provenance.get("training", []):
        trainer, optim = stage["trainer"], stage["optim"]
        lines.append(
            f"- **{stage['run']}**: {stage['updates']} updates of "
            f"{trainer['batch']} x {trainer['accumulate']} clips per device, "
            f"{trainer['loss']} loss, {optim['kind']} at {optim['lr']}, "
            f"mask {trainer['mask']}, {'with' if trainer['depth'] else 'without'} depth"
        )
    return "\n".join(lines) or "No training is recorded."
