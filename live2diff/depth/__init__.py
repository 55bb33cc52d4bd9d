"""Depth: the network that estimates it and the policy that normalises it."""

from live2diff.depth.config import PRESETS, DPTConfig
from live2diff.depth.dpt import DPT
from live2diff.depth.policy import DepthPolicy, DepthState, depth_image

__all__ = ["DPT", "PRESETS", "DPTConfig", "DepthPolicy", "DepthState", "depth_image"]
