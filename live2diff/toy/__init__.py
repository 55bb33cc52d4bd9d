"""The toy world: seeded scenes with exact depth in two looks, for the small default, tests and ablations."""

from live2diff.toy.captions import MAX_CAPTION, caption
from live2diff.toy.looks import LOOKS
from live2diff.toy.render import frames, inverse_depth, render
from live2diff.toy.scene import SPLITS, Scene
from live2diff.toy.write import read_depth, write_videos

__all__ = [
    "LOOKS",
    "MAX_CAPTION",
    "SPLITS",
    "Scene",
    "caption",
    "frames",
    "inverse_depth",
    "read_depth",
    "render",
    "write_videos",
]
