"""What a checkpoint is, told without trusting it: layout, precision, counts, shapes, notes of its maker.

Only names and shapes are read, no values; every word of the file that is shown is cut to one printable line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from live2diff.errors import CheckpointError
from live2diff.interop.kinds import kind_of
from live2diff.model.folder import is_model_folder, read_config, short_name
from live2diff.runs import checkpoints, is_checkpoint, updates_of
from live2diff.weights import read_json, read_weights

_MOST_FILES = 20  # of a folder
_MOST_GROUPS = 12
_MOST_NOTES = 12
_UNETS = ("motion modules", "the public Live2Diff checkpoint", "a UNet in diffusers' layout")
_UNET_PARTS = {
    "spatial weights": r"^(down|up)_blocks\.\d+\.resnets\.",
    "motion modules": r"\.motion_modules\.",
    "depth branch": r"^(flow_conv_in|depth_branch)\.",
}
_LAYOUTS = {
    "the public Live2Diff release's": r"^flow_conv_in\.",
    "AnimateDiff's": r"\.temporal_transformer\.",
    "live2diff's": r"^depth_branch\.",
    "diffusers'": "",
}
_TABLE = re.compile(r"pos_(encoder|embed)\.pe$")
_WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")


def inspect(path: str | Path) -> list[str]:
    """Lines about a weight file, an export, a run, a checkpoint, or a folder of diffusers or transformers.

    Raises:
        CheckpointError: there is nothing, or nothing that can be read as weights.
    """
    path = Path(path)
    if not path.is_dir():
        return _file(path)
    if is_model_folder(path):
        return _export(path)
    if (path / "checkpoints").is_dir():
        return _run(path)
    return _folder(path)


def _export(path: Path) -> list[str]:
    config = read_config(path)
    settings = config.settings
    stages = config.provenance.get("training")
    runs = [stage for stage in stages if isinstance(stage, dict)] if isinstance(stages, list) else []
    lines = [
        f"{path}: an export of live2diff, {short_name(config.dtype)}",
        f"  mask {settings.mask}, window {settings.window}, warm-up {settings.warmup}, "
        f"size {settings.size[0]}x{settings.size[1]}, depth {'used' if settings.uses_depth else 'not used'}",
        f"  trained by {', '.join(_plain(stage.get('run')) for stage in runs) or 'no recorded run'}",
        f"  {len(config.files)} files with hashes; `live2diff ckpt verify {path}` checks them",
    ]
    return lines + _parts(path)


def _run(path: Path) -> list[str]:
    found = checkpoints(path)
    lines = [f"{path}: a training run with {len(found)} complete checkpoints"]
    for checkpoint in found:
        average = ", with an average (ema)" if (checkpoint / "ema.safetensors").is_file() else ""
        lines.append(f"  {checkpoint.name}: {updates_of(checkpoint)} updates{average}")
    return lines + (_indented(_file(found[-1] / "weights.safetensors")) if found else [])


def _folder(path: Path) -> list[str]:
    """Any other folder: what its config says, then the weight files in it."""
    head = f"{path}: a checkpoint of a training run" if is_checkpoint(path) else f"{path}: a folder"
    for name, key in (("model_index.json", "_class_name"), ("config.json", "_class_name")):
        if (path / name).is_file():
            kind = read_json(path / name).get(key) or read_json(path / name).get("model_type")
            head = f"{path}: a folder of {_plain(kind)} ({name})"
            break
    parts = _parts(path)
    if not parts:
        raise CheckpointError(f"{path}: holds no weight files ({', '.join(_WEIGHTS)})")
    return [head, *parts]


def _parts(path: Path) -> list[str]:
    files = sorted(file for file in path.rglob("*") if file.suffix in _WEIGHTS and file.is_file())
    lines = [line for file in files[:_MOST_FILES] for line in _indented(_part(file, path))]
    if len(files) > _MOST_FILES:
        lines.append(f"  and {len(files) - _MOST_FILES} more weight files")
    return lines


def _part(file: Path, folder: Path) -> list[str]:
    name = file.relative_to(folder)
    try:
        weights = read_weights(file)
    except CheckpointError as error:  # a trainer's state, say: the others are still worth a line
        return [f"{name}: not weights ({str(error).removeprefix(f'{file}: ')})"]
    return [f"{name}: {_kind(weights)}; {_amount(weights)}"]


def _file(path: Path) -> list[str]:
    weights = read_weights(path)
    lines = [f"{path}: {_kind(weights)}", f"  {_amount(weights)}"]
    return lines + _indented([*_groups(weights), *_examples(weights), *_notes(path)])


def _kind(weights: Mapping[str, torch.Tensor]) -> str:
    """What it is; of a UNet, which parts of one and in whose layout."""
    kind = kind_of(weights) or "of no kind this project knows"
    held = [part for part, pattern in _UNET_PARTS.items() if _any(pattern, weights)]
    if not held or kind not in _UNETS:
        return kind
    tables = {t.shape[1] for key, t in weights.items() if _TABLE.search(key) and t.ndim == 3}
    if tables:
        middle = "with a" if _any(r"^mid_block\.motion_modules\.", weights) else "no"
        held.append(f"{', '.join(map(str, sorted(tables)))} positions, {middle} mid-block module")
    layout = next(layout for layout, pattern in _LAYOUTS.items() if _any(pattern, weights))
    return f"{', '.join(held)}; in {layout} layout"


def _any(pattern: str, weights: Mapping[str, torch.Tensor]) -> bool:
    return any(re.search(pattern, key) for key in weights)


def _amount(weights: Mapping[str, torch.Tensor]) -> str:
    parameters = sum(tensor.numel() for tensor in weights.values())
    size = sum(tensor.nbytes for tensor in weights.values())
    kinds = Counter(tensor.dtype for tensor in weights.values())
    types = ", ".join(
        short_name(dtype).removeprefix("torch.") + (f" in {count}" if len(kinds) > 1 else "")
        for dtype, count in kinds.most_common()
    )
    return f"{len(weights)} tensors, {_number(parameters)} values, {types}, {_number(size)}B"


def _groups(weights: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """Tensors and values by the first two words of their names, numbers left out."""
    groups: dict[str, list[int]] = {}
    for key, tensor in weights.items():
        group = groups.setdefault(re.sub(r"\d+", "N", ".".join(key[:200].split(".")[:2])), [0, 0])
        group[0] += 1
        group[1] += tensor.numel()
    for name, (count, values) in islice(groups.items(), _MOST_GROUPS):
        yield f"{_plain(name)}: {count} tensors, {_number(values)} values"
    if len(groups) > _MOST_GROUPS:
        yield f"and {len(groups) - _MOST_GROUPS} more groups"


def _examples(weights: Mapping[str, torch.Tensor]) -> Iterator[str]:
    name, tensor = max(weights.items(), key=lambda item: item[1].numel())
    yield f"largest: {_plain(name)} {tuple(tensor.shape)}"


def _notes(path: Path) -> Iterator[str]:
    """What the maker of a safetensors file wrote into its header."""
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
    except (SafetensorError, OSError):  # a PyTorch checkpoint
        return
    for key, value in islice(sorted(notes.items()), _MOST_NOTES):
        yield f"note {_plain(key)}: {_plain(value)}"
    if len(notes) > _MOST_NOTES:
        yield f"and {len(notes) - _MOST_NOTES} more notes"


def _number(count: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)


def _indented(lines: Any) -> list[str]:
    return [f"  {line}" for line in lines]


def _plain(value: Any) -> str:
    """One short printable line of whatever a file says."""
    text = " ".join(str(value)[:1000].split())
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 120 else f"{text[:117]}..."
