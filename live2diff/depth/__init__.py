"""Depth: the networks that estimate it and the policy that normalises it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from live2diff.depth.policy import DepthPolicy, DepthState, depth_image

if TYPE_CHECKING:
    from live2diff.depth.base import DepthNetwork
    from live2diff.depth.config import PRESETS, DPTConfig
    from live2diff.depth.dpt import DPT
    from live2diff.depth.networks import NETWORKS, load_depth, load_midas, new_depth
    from live2diff.depth.small import MidasSmall

__all__ = [
    "DPT",
    "NETWORKS",
    "PRESETS",
    "DPTConfig",
    "DepthNetwork",
    "DepthPolicy",
    "DepthState",
    "MidasSmall",
    "depth_image",
    "load_depth",
    "load_midas",
    "new_depth",
]

# The networks bring timm, which takes seconds; settings only need the policy.
_NETWORKS = {
    "DepthNetwork": "base",
    "PRESETS": "config",
    "DPTConfig": "config",
    "DPT": "dpt",
    "NETWORKS": "networks",
    "load_depth": "networks",
    "load_midas": "networks",
    "new_depth": "networks",
    "MidasSmall": "small",
}


def __getattr__(name: str) -> Any:
    if name not in _NETWORKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NETWORKS[name]}"), name)
