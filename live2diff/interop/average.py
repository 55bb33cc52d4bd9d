"""The running average of weights (EMA) out of the checkpoints that keep one beside the trained weights."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from live2diff.errors import CheckpointError, UsageError
from live2diff.files import staged_file
from live2diff.interop.history import trained_weights
from live2diff.model.build import locate
from live2diff.model.folder import is_model_folder
from live2diff.weights import read_weights

# Stable Diffusion's own checkpoints: the average of model.NAME lies under model_ema., NAME without its dots.
_TRAINED, _AVERAGE = "model.", "model_ema."


def extract_ema(source: str | Path, out: str | Path) -> int:
    """Write the averaged weights of `source` to the safetensors file `out`.

    Args:
        source: a run of this project (its newest checkpoint), one of its checkpoints, or a Stable Diffusion
            single file with `model_ema.` in it, which comes out as a whole file with the average in place.

    Returns:
        How many tensors of the average there are.

    Raises:
        UsageError: `out` exists or is not named .safetensors.
        CheckpointError: `source` keeps no average.
    """
    source, out = Path(source), Path(out)
    if out.suffix != ".safetensors":
        raise UsageError(f"{out}: must be named .safetensors")
    if out.exists():
        raise UsageError(f"{out}: exists already; choose another name")
    if source.is_dir():
        weights = read_weights(trained_weights(_checkpoint(source), "ema"))
        count = len(weights)
    else:
        weights, count = _in_place(read_weights(source), source)
    with staged_file(out) as stage:
        save_file(weights, stage, metadata={"format": "pt"})
    return count


def _checkpoint(source: Path) -> Path:
    place = locate(source)
    if is_model_folder(place):
        raise CheckpointError(f"{place}: is a whole model, which has one set of weights; give a training run")
    return place


def _in_place(weights: dict[str, torch.Tensor], source: Path) -> tuple[dict[str, torch.Tensor], int]:
    averages = {key.removeprefix(_AVERAGE): t for key, t in weights.items() if key.startswith(_AVERAGE)}
    taken, result = 0, {}
    for key, tensor in weights.items():
        if key.startswith(_AVERAGE):
            continue
        average = (
            averages.get(key.removeprefix(_TRAINED).replace(".", "")) if key.startswith(_TRAINED) else None
        )
        if average is not None and average.shape != tensor.shape:
            raise CheckpointError(f"{source}: the average of {key} has another shape; get the file again")
        taken += average is not None
        result[key] = tensor if average is None else average
    if not taken:
        raise CheckpointError(f"{source}: holds no average of the weights (no keys {_AVERAGE}...)")
    return result, taken
