"""TAESD as its author publishes it: two files of numbered layers, `taesd_encoder` and `taesd_decoder`.

diffusers' `AutoencoderTiny` has the same layers, as `encoder.layers.N` and `decoder.layers.N`. Its decoder
leaves out the original's layer 0, a clamp without weights, and so counts one less.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch

from live2diff.errors import CheckpointError
from live2diff.interop.kinds import kind_of, refuse
from live2diff.weights import read_weights

_NUMBERED = re.compile(r"(\d+)\.(.+)")
_NAME = re.compile(r"(encoder|decoder)(?!.*(encoder|decoder))")
_SUFFIXES = (".safetensors", ".pth", ".pt")


def is_original(weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether `weights` are one half of a TAESD, in the author's layout."""
    return all(_NUMBERED.fullmatch(key) for key in weights)


def taesd_weights(path: Path) -> dict[str, torch.Tensor]:
    """Both halves by diffusers' names. `path`: either file; the other lies beside it. Or their folder.

    Raises:
        CheckpointError: a half is missing or is no TAESD.
    """
    state = {}
    for half, shift in (("encoder", 0), ("decoder", -1)):
        file = _half(path, half)
        weights = read_weights(file)
        if kind_of(weights) != "a TAESD" or not is_original(weights):
            refuse(weights, file, f"a TAESD {half}")
        for key, tensor in weights.items():
            number, _, rest = key.partition(".")
            state[f"{half}.layers.{int(number) + shift}.{rest}"] = tensor
    return state


def has_halves(folder: Path) -> bool:
    return any((folder / f"taesd_encoder{suffix}").is_file() for suffix in _SUFFIXES)


def _half(path: Path, half: str) -> Path:
    if path.is_dir():
        files = [path / f"taesd_{half}{suffix}" for suffix in _SUFFIXES]
    elif _NAME.search(path.name):
        files = [path.with_name(_NAME.sub(half, path.name))]
    else:
        raise CheckpointError(
            f"{path}: name it taesd_encoder or taesd_decoder, with the other half beside it"
        )
    for file in files:
        if file.is_file():
            return file
    raise CheckpointError(f"{files[0]}: no such file; TAESD is two files, encoder and decoder, side by side")
