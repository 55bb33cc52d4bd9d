"""Exact flow: it finds the same surface point again, in the picture and there and back."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from live2diff.errors import UsageError
from live2diff.toy import Scene, inverse_depth, optical_flow, render
from live2diff.toy.scene import FOCAL, Card, Motion
from live2diff.toy.view import View

SIZE = (96, 72)


def warp(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """`picture` as seen along `flow`: what the pixels of the first picture find in it, bilinear."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        picture, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def inner(seen: np.ndarray) -> np.ndarray:
    """`seen` but for the pixels beside what is not: bilinear reading mixes them."""
    return cv2.erode(seen.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)


def at_rest(scene: Scene) -> Scene:
    """The scene with a camera and cards that stand still."""
    camera = replace(scene.camera, reach=(0.0, 0.0, 0.0))
    motion = Motion("drift", (0.1, 0.0), (0.0, 0.0), 1.0, (0.0, 0.0))
    return replace(
        scene, camera=camera, cards=tuple(replace(c, motion=motion, spin=0.0) for c in scene.cards)
    )


@pytest.mark.parametrize("look", ["cartoon", "drawing"])
def test_the_target_warped_by_the_flow_is_the_source(look: str) -> None:
    """In a picture large enough that reading between pixels loses little; and without the flow it is not."""
    size, errors, shifted = (320, 240), [], []
    for seed in range(8):
        scene = Scene.sample(seed)
        for t, to in ((1.0, 1.125), (2.5, 2.25)):
            flow, seen = optical_flow(scene, t, to, size)
            here, there = (render(scene, moment, size, look).astype(np.float32) for moment in (t, to))
            mask = inner(seen)
            assert mask.mean() > 0.6
            errors.append(np.abs(warp(there, flow) - here)[mask].mean())
            shifted.append(np.abs(there - here)[mask].mean())
    assert max(errors) < 3.0 and np.mean(errors) < 1.5, errors
    assert np.mean(shifted) > 6 * np.mean(errors)


def test_what_cannot_be_seen_differs() -> None:
    """The mask leaves out what is wrong, and little else: where it is off, the flow finds another surface."""
    wrong = []
    for seed in range(12):
        scene = Scene.sample(seed)
        flow, seen = optical_flow(scene, 1.0, 1.375, SIZE)
        # Depth tells surfaces apart.
        gap = np.abs(warp(inverse_depth(scene, 1.375, SIZE), flow) - inverse_depth(scene, 1.0, SIZE))
        height, width = seen.shape
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        x, y = x + flow[..., 0], y + flow[..., 1]
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        assert not seen[~inside].any()
        hidden = inside & ~seen
        wrong += list(gap[hidden])
    assert len(wrong) > 500 and np.mean(np.array(wrong) > 0.02) > 0.8


@pytest.mark.parametrize("seed", range(6))
def test_there_and_back_is_nowhere(seed: int) -> None:
    scene = Scene.sample(seed)
    forward, seen = optical_flow(scene, 0.5, 0.75, SIZE)
    backward, _ = optical_flow(scene, 0.75, 0.5, SIZE)
    assert forward.dtype == np.float32 and forward.shape == (72, 96, 2) and seen.dtype == bool
    gap = np.hypot(*np.moveaxis(forward + warp(backward, forward), -1, 0))
    # Where the reading mixes two surfaces, neither need come back.
    depth, around = inverse_depth(scene, 0.75, SIZE), np.ones((3, 3), np.uint8)
    mixed = (cv2.dilate(depth, around) - cv2.erode(depth, around) > 0.004).astype(np.float32)
    pure = seen & (warp(mixed, forward) == 0)
    assert pure.mean() > 0.6
    assert gap[pure].max() < 0.05, gap[pure].max()


def test_a_scene_at_rest_does_not_flow() -> None:
    for seed in range(4):
        flow, seen = optical_flow(at_rest(Scene.sample(seed)), 0.3, 2.9, SIZE)
        assert np.abs(flow).max() < 1e-5 and seen[1:-1, 1:-1].all()
    flow, _ = optical_flow(Scene.sample(0), 1.0, 1.0, SIZE)
    assert np.abs(flow).max() < 1e-5


def test_a_turn_about_the_centre() -> None:
    """A card that only turns, by a right angle: (x, y) from its centre goes to (-y, x)."""
    scene = at_rest(Scene.sample(3))
    card: Card = replace(scene.cards[0], shape="circle", spin=np.pi / 2)
    scene = replace(scene, cards=(card,))
    flow, seen = optical_flow(scene, 0.0, 1.0, SIZE)
    view = View(scene, 0.0, SIZE)
    (u0, v0), radius, _ = view.place(card)
    x, y = np.meshgrid((view.u - u0) / view.pixel, (view.v - v0) / view.pixel)
    on = np.hypot(x, y) < 0.85 * radius / view.pixel
    assert on.sum() > 100 and seen[on].all()
    assert np.allclose(flow[on], np.stack([-y - x, x - y], axis=-1)[on], atol=1e-3)
    assert np.abs(flow[np.hypot(x, y) > 0.95 * radius / view.pixel]).max() < 1e-5


def test_parallax_is_the_inverse_depth() -> None:
    """A camera that moves sideways: everything moves by FOCAL times its step times (1/PIVOT - 1/z)."""
    from live2diff.toy.scene import PIVOT

    scene = at_rest(Scene.sample(2))
    moved = replace(scene, camera=replace(scene.camera, reach=(0.4, 0.0, 0.0), phase=(0.0, 0.0, 0.0)))
    quarter = moved.camera.period[0] / 4
    flow, _ = optical_flow(moved, 0.0, quarter, SIZE)
    expected = 0.4 * FOCAL * (1 / PIVOT - inverse_depth(moved, 0.0, SIZE)) / View(moved, 0.0, SIZE).pixel
    on_cards = inverse_depth(moved, 0.0, SIZE) > 1 / 3.7
    assert on_cards.sum() > 100
    assert np.allclose(flow[..., 0][on_cards], expected[on_cards], atol=1e-3)
    # The slanted wall is met at another depth by the other camera's own formula: the same, to its slope.
    assert np.abs(flow[..., 0] - expected)[~on_cards].max() < 0.5
    assert np.abs(flow[..., 1]).max() < 0.5


def test_sizes_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(UsageError, match="toy size"):
        optical_flow(Scene.sample(0), 0.0, 1.0, (8, 8))
