"""LoRA into the weights for good, and an export folder with them in it: `live2diff ckpt merge-lora`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from live2diff.errors import UsageError
from live2diff.interop.lora.attach import add_lora, bake_lora, lora_names
from live2diff.interop.lora.fit import fit
from live2diff.interop.lora.read import read_lora
from live2diff.interop.textual_inversion import add_embedding
from live2diff.model.folder import read_config, sha256_of, short_name
from live2diff.model.video_model import VideoModel


def merge_loras(model: VideoModel, loras: Sequence[tuple[str | Path, float]]) -> None:
    """Fuse LoRA files, each with its scale, into the model's weights, in place and for good.

    The model's provenance notes their names, scales and hashes. Nothing changes unless all of them fit.

    Raises:
        CheckpointError: a file is no LoRA of this model.
        UsageError: the model has adapters already; what would become of them is unclear.
    """
    if lora_names(model):
        raise UsageError("the model has LoRA adapters; remove or bake them before merging others")
    files = [(read_lora(path), scale) for path, scale in loras]
    for file, _ in files:
        fit(file, model)
    for file, scale in files:
        add_lora(model, file, scale)
        bake_lora(model)  # one at a time: their matrices are in memory together only as read, mapped
        _note(model, "loras", {"file": file.path.name, "scale": scale, "sha256": sha256_of(file.path)})


def merge_into_export(
    export: str | Path,
    loras: Sequence[tuple[str | Path, float]],
    out: str | Path,
    *,
    embeddings: Sequence[str | Path] = (),
    overwrite: bool = False,
) -> dict[str, Any]:
    """Export `export` again, in its precision, with LoRA fused and tokens of embeddings added.

    Returns:
        The parity certificate of what was written.

    Raises:
        UsageError: `out` exists and `overwrite` is not set, or a token's name is taken.
        CheckpointError: no model folder, a file that does not fit it, or the certificate does not hold.
    """
    from live2diff.interop.export import export as export_again  # it reads runs, whose models may have LoRA

    def merge(model: VideoModel) -> None:
        merge_loras(model, loras)
        for path in embeddings:
            tokens, digest = add_embedding(model.text, path), sha256_of(Path(path))
            _note(model, "embeddings", {"file": Path(path).name, "tokens": tokens, "sha256": digest})

    dtype = short_name(read_config(Path(export)).dtype)
    return export_again(export, out, dtype=dtype, change=merge, overwrite=overwrite)


def parse_lora(argument: str) -> tuple[Path, float]:
    """`PATH[:SCALE]` of a command line -> (path, scale); the scale is 1 when none is given.

    What follows the last colon is a scale when it is a number and the whole is not an existing path: a name
    may hold colons. Raises UsageError.
    """
    head, colon, tail = argument.rpartition(":")
    if not colon or Path(argument).exists():
        head, tail = argument, "1"
    try:
        scale = float(tail)
    except ValueError:
        head, scale = argument, 1.0  # C:\\loras\\disney.safetensors
    if not head or not math.isfinite(scale):
        raise UsageError(f"--lora {argument}: expected PATH or PATH:SCALE, like disney.safetensors:0.8")
    return Path(head), scale


def _note(model: VideoModel, key: str, fact: dict[str, Any]) -> None:
    model.provenance[key] = [*model.provenance.get(key, []), fact]
