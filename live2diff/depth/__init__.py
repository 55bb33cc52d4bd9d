"""Depth: the networks that estimate it and the policy that normalises it."""

from live2diff.depth.base import DepthNetwork
from live2diff.depth.config import PRESETS, DPTConfig
from live2diff.depth.dpt import DPT
from live2diff.depth.networks import NETWORKS, load_depth, load_midas, new_depth
from live2diff.depth.policy import DepthPolicy, DepthState, depth_image
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
