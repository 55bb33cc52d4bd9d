"""A training run -> a folder that loads in one call, with a certificate that it streams and a model card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from live2diff import __version__
from live2diff.errors import CheckpointError, UsageError
from live2diff.files import staged_folder, write_json
from live2diff.interop.card import model_card, write_sample
from live2diff.interop.certificate import FILE, Fingerprint, certify, fingerprint
from live2diff.interop.lora import bake_lora
from live2diff.model.build import load_model
from live2diff.model.folder import DTYPES, is_model_folder
from live2diff.model.video_model import VideoModel


def export(
    run: str | Path,
    out: str | Path,
    *,
    dtype: str = "fp32",
    weights: str = "raw",
    change: Callable[[VideoModel], None] = bake_lora,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the model of `run`'s newest checkpoint to the folder `out` and return its parity certificate.

    Staged: `out` is there when the written model has been loaded again and certified, or not at all. One copy
    of the weights is in memory at a time.

    Args:
        run: a training run, one of its checkpoints, or another export.
        dtype: fp32, fp16 or bf16, for UNet, VAE and text encoder; the depth net stays in float32.
        weights: raw, or ema for the average that the run kept.
        change: what is done to the model before it is written; adapters become part of its weights.

    Raises:
        UsageError: `out` exists and `overwrite` is not set.
        CheckpointError: there is no complete checkpoint, what it was built on is gone, a weight does not fit
            `dtype`, or the certificate does not hold.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        raise UsageError(f"{out}: exists already; choose another folder or add --overwrite")
    if out.exists() and not is_model_folder(out):
        raise UsageError(f"{out}: is not an export; --overwrite replaces nothing else")
    with staged_folder(out) as stage:
        try:
            exported = _write(stage, load_model(run, weights), dtype, change)
            model = VideoModel.load(stage)
            certificate = certify(stage, model, exported)
        except CheckpointError as error:
            raise CheckpointError(str(error).replace(str(stage), str(out))) from error
        write_json(stage / FILE, certificate)
        write_sample(model, stage)
        card = model_card(model, stage, out.name, certificate)
        (stage / "README.md").write_text(card, encoding="utf-8")
    return certificate


def _write(folder: Path, model: VideoModel, dtype: str, change: Callable[[VideoModel], None]) -> Fingerprint:
    """Write the model and take its fingerprint; nobody holds it when this returns."""
    change(model)
    model.to("cpu", DTYPES[dtype])
    for part in (model.unet, model.vae, model.text):
        for name, tensor in part.state_dict().items():
            if not tensor.isfinite().all():
                raise CheckpointError(
                    f"{folder}: {name} holds values that are not finite in {dtype}; export it in bf16 or fp32"
                )
    model.provenance["exported_by"] = f"live2diff {__version__}"
    model.write(folder)
    return fingerprint(model)
