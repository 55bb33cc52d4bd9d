"""The toy world: seeded scenes in a source look and two styles, with exact depth and flow.

For the small default, tests and ablations: whatever is asked of a translation, here the answer is known.
"""

from live2diff.toy.captions import MAX_CAPTION, caption
from live2diff.toy.flow import optical_flow
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
    "optical_flow",
    "read_depth",
    "render",
    "write_videos",
]
