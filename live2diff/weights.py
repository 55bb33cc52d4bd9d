"""Reading weight files that may be anything, and fitting them to a model.

A file is hostile until its tensors have the names, shapes and kind that the model expects: no pickled code
runs, and whatever is wrong comes out as one `CheckpointError` line. A reloaded model computes bit for bit
what the saved one did.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import nn

from live2diff.errors import CheckpointError

M = TypeVar("M", bound=nn.Module)

_LARGEST_JSON = 1 << 20  # bytes; a config is a few hundred
_WRAPPERS = ("state_dict", "model")  # where training scripts put the weights beside an optimiser's state


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a `.safetensors` file, or of any other name read as a PyTorch checkpoint, on the CPU.

    A checkpoint may be the state dict itself or hold it under "state_dict" or "model".

    Raises:
        CheckpointError: no file, or no weights (a web page, a Git LFS pointer, a damaged file, pickled code).
    """
    _need_file(path)
    try:
        if path.suffix == ".safetensors":
            data: Any = load_file(path)
        else:
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise a dozen kinds on bytes that are not theirs
        raise CheckpointError(f"{path}: {_explain(path)}") from error
    for key in _WRAPPERS:
        if isinstance(data, dict) and isinstance(data.get(key), dict):
            data = data[key]
    if not isinstance(data, dict) or not data or not all(isinstance(key, str) for key in data):
        raise CheckpointError(f"{path}: holds no table of named weights; give a checkpoint of this model")
    for key, value in data.items():
        # Sparse, nested or meta tensors would only fail later, and less clearly.
        plain = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_nested
        if not plain or value.device.type != "cpu":
            raise CheckpointError(f"{path}: {_name(key)} is no plain tensor; give a file of weights only")
    return data


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a small file. Raises `CheckpointError`."""
    _need_file(path)
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError("too large")
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not a readable JSON file; export the model again") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: holds no JSON object; export the model again")
    return data


def fit_weights(model: nn.Module, weights: dict[str, torch.Tensor], where: Path) -> None:
    """Give `model` copies of `weights` in float32. Names and shapes must be exactly those of its state dict.

    The model may stand on the meta device: its parameters are replaced, not written to.

    Raises:
        CheckpointError: keys that are missing, unexpected or of another shape (the first of each are named),
            values that are not floating point or not finite.
    """
    expected = model.state_dict()
    faults = {
        "missing": [_name(key) for key in expected if key not in weights],
        "unexpected": [_name(key) for key in weights if key not in expected],
        "of another shape": [
            f"{_name(key)} {tuple(weights[key].shape)} instead of {tuple(tensor.shape)}"
            for key, tensor in expected.items()
            if key in weights and weights[key].shape != tensor.shape
        ],
    }
    found = [f"{len(keys)} keys {kind} ({_first(keys)})" for kind, keys in faults.items() if keys]
    if found:
        raise CheckpointError(f"{where}: not weights of this model: {'; '.join(found)}")
    copies = {}
    for key, tensor in weights.items():
        # A copy: tensors read from a file may be windows on it, and would change with it.
        copies[key] = torch.empty(tensor.shape).copy_(tensor)
        if not tensor.is_floating_point() or not copies[key].isfinite().all():
            raise CheckpointError(
                f"{where}: {_name(key)} holds values that are no finite floats; get it again"
            )
    model.load_state_dict(copies, assign=True)


def load_pretrained(kind: type[M], where: str | Path, **options: Any) -> M:
    """`kind.from_pretrained(where)` of diffusers or transformers, refusing what they only warn of.

    A weight that the files lack would keep its random initial value.

    Raises:
        CheckpointError: missing, misshapen or non-finite weights. The libraries' own errors (OSError,
            ValueError, ...) for folders they cannot read pass through.
    """
    model, info = kind.from_pretrained(where, output_loading_info=True, **options)
    for what in ("missing", "mismatched"):
        keys = sorted(str(key) for key in info[f"{what}_keys"])
        if keys:
            raise CheckpointError(f"{where}: {len(keys)} {what} weights ({_first(keys)}); get it again")
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"{where}: {name} holds values that are not finite; get it again")
    return realign(model)


def realign(module: M) -> M:
    """Move every parameter and buffer to freshly allocated memory, one tensor at a time; returns `module`.

    safetensors maps the file, and tensors then start wherever the file put them. CPU kernels choose their
    code path by alignment, so the same numbers at another address give results that differ in the last bits.
    """
    for tensor in itertools.chain(module.parameters(), module.buffers()):
        tensor.data = tensor.data.clone()
    return module


def _need_file(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")


def _explain(path: Path) -> str:
    """What a file that is no checkpoint probably is, from its first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(64).lstrip()
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights; run `git lfs pull` where it came from"
    if head.startswith(b"<"):
        return "is a web page, not weights; the download went wrong, get it again"
    return "is no readable weight file (damaged, cut short, or a pickle with code, which is refused)"


def _first(keys: list[str], count: int = 3) -> str:
    return ", ".join(keys[:count]) + (", ..." if len(keys) > count else "")


def _name(key: str) -> str:
    """A key as one short printable line: it may come from a hostile file."""
    return key if key.isprintable() and len(key) <= 100 else ascii(key)[:100]
