"""The depth networks by name, and from whatever holds one."""

from __future__ import annotations

import os
from pathlib import Path

from live2diff.depth.base import DepthNetwork
from live2diff.depth.config import PRESETS
from live2diff.depth.dpt import DPT
from live2diff.depth.small import MidasSmall
from live2diff.errors import CheckpointError, UsageError
from live2diff.weights import read_json

SMALL = "midas_v21_small"
NETWORKS = (*PRESETS, SMALL)  # what `model.depth.preset` may be


def new_depth(name: str) -> DepthNetwork:
    """The network of that name with random weights. Raises UsageError for another name."""
    _need_known(name)
    return MidasSmall() if name == SMALL else DPT(PRESETS[name])


def load_midas(path: str | os.PathLike, name: str) -> DepthNetwork:
    """The network of that name with the weights of an official MiDaS file.

    Raises:
        UsageError: another name.
        CheckpointError: not a weight file, or not one of that network.
    """
    _need_known(name)
    return MidasSmall.load_midas(path) if name == SMALL else DPT.load_midas(path, name)


def load_depth(folder: str | os.PathLike) -> DepthNetwork:
    """The network that `DepthNetwork.save` wrote. Raises CheckpointError."""
    path = Path(folder) / "config.json"
    kinds = {kind.FORMAT: kind for kind in (DPT, MidasSmall)}
    written = read_json(path).get("format")
    if not isinstance(written, str) or written not in kinds:
        raise CheckpointError(f"{path}: 'format' is none of {', '.join(kinds)}; update live2diff")
    return kinds[written].load(folder)


def _need_known(name: str) -> None:
    if name not in NETWORKS:
        raise UsageError(f"model.depth.preset={name}: expected one of {', '.join(NETWORKS)}")
