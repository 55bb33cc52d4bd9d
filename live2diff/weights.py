"""Reading weight files that may be anything, and fitting them to a model.

A file is hostile until its tensors have the names, shapes and kind that the model expects: no pickled code
runs, and whatever is wrong comes out as one `CheckpointError` line. Tensors are windows on the file until
they are fitted, one by one. A reloaded model computes bit for bit what the saved one did.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from live2diff.errors import CheckpointError
from live2diff.tensor_files import read_table

M = TypeVar("M", bound=nn.Module)

_LARGEST_JSON = 1 << 20  # bytes; a config is a few hundred
_WRAPPERS = ("state_dict", "model")  # where training scripts put the weights beside an optimiser's state
_PREFIX = "module."  # what DistributedDataParallel puts before every name
# How diffusers and transformers call the weights of a folder, the most wanted first.
_FOLDER_NAMES = [
    f"{stem}{variant}"
    for variant in (".safetensors", ".fp16.safetensors", ".bin", ".fp16.bin")
    for stem in ("diffusion_pytorch_model", "model", "pytorch_model")
]


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, on the CPU: safetensors or a PyTorch checkpoint, whatever its name says.

    They may be windows on the file: read them, or copy them with `fit_weights`, and do not write to them.
    Wrappings are undone: a table under "state_dict" or "model", a `module.` before every name. Notes that
    training scripts leave beside the weights (`epoch`, `animatediff_config`) are dropped.

    Raises:
        CheckpointError: no file, or no weights (a web page, a Git LFS pointer, a damaged file, pickled code).
    """
    _need_file(path)
    data = _unwrapped(read_table(path))
    if not isinstance(data, dict) or not data or not all(isinstance(key, str) for key in data):
        raise CheckpointError(f"{path}: holds no table of named weights; give a checkpoint of this model")
    data = {key: value for key, value in data.items() if isinstance(value, torch.Tensor) or "." in key}
    for key, value in data.items():
        # Sparse, nested or meta tensors would only fail later, and less clearly.
        plain = isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_nested
        if not plain or value.device.type != "cpu":
            raise CheckpointError(f"{path}: {_name(key)} is no plain tensor; give a file of weights only")
    if not data:
        raise CheckpointError(f"{path}: holds no weights; give a checkpoint of this model")
    while all(key.startswith(_PREFIX) for key in data):
        data = {key.removeprefix(_PREFIX): value for key, value in data.items()}
    return data


def read_folder(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a part in diffusers' or transformers' layout, which may be split over several files.

    Raises:
        CheckpointError: no file of weights under a known name, or one that cannot be read.
    """
    for name in _FOLDER_NAMES:
        if (folder / name).is_file():
            return read_weights(folder / name)
        if (index := folder / f"{name}.index.json").is_file():
            files = read_json(index).get("weight_map")
            names = set(files.values()) if isinstance(files, dict) else set()
            if not names or not all(isinstance(file, str) and Path(file).name == file for file in names):
                raise CheckpointError(f"{index}: names no weight files; get the folder again")
            tables = [read_weights(folder / file) for file in sorted(names)]
            return {key: value for table in tables for key, value in table.items()}
    kind = "holds no weights" if folder.is_dir() else "no such folder"
    raise CheckpointError(f"{folder}: {kind} (looked for {_FOLDER_NAMES[0]} and the like); get it again")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a small file. Raises `CheckpointError`."""
    _need_file(path)
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError("too large")
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: is not a readable JSON file; get it, or export it, again") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: holds no JSON object; get it, or export it, again")
    return data


def fit_weights(
    model: nn.Module,
    weights: Mapping[str, torch.Tensor],
    where: str | Path,
    dtype: torch.dtype = torch.float32,
    only: Callable[[str], bool] | None = None,
) -> None:
    """Give `model` copies of `weights` in `dtype`. Names and shapes must be exactly those of its state dict.

    The model may stand on the meta device (`without_weights`): parameters are replaced, not written to.

    Args:
        where: what to call the weights in errors: usually the file.
        only: the names of the model's state that `weights` must be; None: all of it.

    Raises:
        CheckpointError: keys that are missing, unexpected or of another shape (the first of each are named),
            values that are not floating point or not finite. The model is then as before.
    """
    expected = {key: tensor for key, tensor in model.state_dict().items() if only is None or only(key)}
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
    for key, tensor in weights.items():
        wanted = expected[key].dtype
        if tensor.is_floating_point() != wanted.is_floating_point:
            kind = "finite floats" if wanted.is_floating_point else "whole numbers"
            raise CheckpointError(
                f"{where}: {_name(key)} holds values that are no {kind} ({tensor.dtype}); get it again"
            )
        if wanted.is_floating_point and not is_finite(tensor.to(dtype)):
            raise CheckpointError(
                f"{where}: {_name(key)} holds values that are no finite floats; get it again"
            )
    for key, tensor in weights.items():  # one by one: what a tensor replaces goes before the next one comes
        wanted = expected.pop(key).dtype
        # A copy: tensors read from a file are windows on it, and would change with it.
        copy = torch.empty(tensor.shape, dtype=dtype if wanted.is_floating_point else wanted).copy_(tensor)
        path, _, name = key.rpartition(".")
        owner = model.get_submodule(path)
        old = getattr(owner, name)
        setattr(owner, name, nn.Parameter(copy, old.requires_grad) if isinstance(old, nn.Parameter) else copy)


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no value is NaN or infinite. In one pass and without another tensor of that size."""
    return not tensor.numel() or all(bool(end.isfinite()) for end in torch.aminmax(tensor))


@contextmanager
def without_weights() -> Iterator[None]:
    """Modules built inside have no memory for parameters, which stand on the meta device; buffers are real.

    For models whose weights come from a file: nothing is allocated or drawn at random to be replaced.
    """
    from accelerate import init_empty_weights
    from diffusers.models.modeling_utils import no_init_weights

    with no_init_weights(), init_empty_weights(include_buffers=False):
        yield


def initialise(module: nn.Module) -> None:
    """Give parameters still on the meta device the random values of a fresh module, in place."""
    for part in module.modules():
        if any(parameter.is_meta for parameter in part.parameters(recurse=False)):
            part.to_empty(device="cpu", recurse=False)
            part.reset_parameters()  # every layer of torch's has it


def load_pretrained(kind: type[M], where: str | Path, **options: Any) -> M:
    """`kind.from_pretrained(where)` of diffusers or transformers, refusing what they only warn of.

    For networks that only their library can put together. A weight that the files lack would keep its random
    initial value.

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
        if tensor.is_floating_point() and not is_finite(tensor):
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


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of a module's weights: equal for equal numbers, whatever precision they were stored in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if tensor.is_floating_point():
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _unwrapped(data: Any) -> Any:
    for _ in range(3):  # a table may hold itself
        inner = [data[key] for key in _WRAPPERS if isinstance(data, dict) and isinstance(data.get(key), dict)]
        if not inner:
            break
        data = inner[0]
    return data


def _need_file(path: Path) -> None:
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is not a file' if path.exists() else 'no such file'}")


def _first(keys: list[str], count: int = 3) -> str:
    return ", ".join(keys[:count]) + (", ..." if len(keys) > count else "")


def _name(key: str) -> str:
    """A key as one short printable line: it may come from a hostile file."""
    return key if key.isprintable() and len(key) <= 100 else ascii(key)[:100]
