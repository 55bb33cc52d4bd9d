"""Held-out scenes of the toy world, with everything that is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from live2diff import toy

FPS, SIZE = 8, (64, 64)  # of the toy weights
LOOK = "cartoon"  # what the ablations translate into


@dataclass(frozen=True)
class TrueScene:
    """A clip and its true answers.

    Attributes:
        source: the photo-like frames, uint8 RGB (F, H, W, 3).
        truth: the same in the other look.
        depth: inverse depth (F, H, W).
        flow: to the next frame, (F - 1, H, W, 2), pixels; `seen` bool (F - 1, H, W), what stays visible.
        caption: of the truth.
    """

    seed: int
    source: np.ndarray
    truth: np.ndarray
    depth: np.ndarray
    flow: np.ndarray
    seen: np.ndarray
    caption: str


def held_out(count: int, frames: int, look: str = LOOK) -> Iterator[TrueScene]:
    """The first `count` scenes of the split test, `frames` frames of each."""
    times = [i / FPS for i in range(frames)]
    for seed in range(toy.SPLITS["test"], toy.SPLITS["test"] + count):
        scene = toy.Scene.sample(seed)
        source, depth = toy.frames(seed, times, SIZE, "photo")
        truth, _ = toy.frames(seed, times, SIZE, look)
        flows = [toy.optical_flow(scene, *pair, SIZE) for pair in zip(times, times[1:], strict=False)]
        flow, seen = (np.stack(values) for values in zip(*flows, strict=True))
        yield TrueScene(seed, source, truth, depth, flow, seen, toy.caption(scene, look))
