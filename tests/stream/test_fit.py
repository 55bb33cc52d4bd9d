"""Any shape to the stream's: a circle stays a circle, nothing is lost that need not be."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from live2diff.errors import UsageError
from live2diff.stream.fit import fit
from live2diff.stream.strength import steps_of


def disc(width, height, aspect=1.0):
    """A white disc in the middle as it looks on screen, in pixels that are `aspect` times as wide as high."""
    picture = np.zeros((height, width, 3), np.uint8)
    radius = 0.4 * min(width * aspect, height)
    axes = (radius / aspect, radius)
    cv2.ellipse(picture, ((width / 2, height / 2), (2 * axes[0], 2 * axes[1]), 0), (255, 255, 255), -1)
    return picture


def extent(picture):
    """Width and height of what is white."""
    white = picture[..., 0] > 127
    return np.flatnonzero(white.any(0)).size, np.flatnonzero(white.any(1)).size


@pytest.mark.parametrize("source", [(300, 200), (200, 300), (333, 111), (64, 64), (31, 47), (512, 16)])
@pytest.mark.parametrize("target", [(64, 64), (128, 72), (72, 128), (8, 8)])
@pytest.mark.parametrize("aspect", [1.0, 12 / 11, 0.5])
@pytest.mark.parametrize("how", ["crop", "pad", "stretch"])
def test_size_is_exact_and_shape_kept(source, target, aspect, how):
    before = disc(*source, aspect)
    after = fit(before, target, how, aspect)
    assert after.shape == (target[1], target[0], 3) and after.dtype == np.uint8
    width, height = extent(after)
    cut = how == "crop" and (width == target[0] or height == target[1])
    if how != "stretch" and not cut and min(source) > 40 and min(width, height) > 8:
        assert width == pytest.approx(height, abs=0.06 * width + 2)


def test_crop_cuts_and_pad_adds_evenly():
    picture = np.full((60, 100, 3), 200, np.uint8)
    picture[:, :20], picture[:, -20:] = (255, 0, 0), (0, 0, 255)
    assert (fit(picture, (56, 56), "crop") == 200).all()
    padded = fit(picture, (100, 100), "pad")
    assert (padded[20:80] == picture).all() and not padded[:20].any() and not padded[80:].any()
    stretched = fit(picture, (40, 40), "stretch")
    assert stretched[20, 2, 0] == 255 and stretched[20, -3, 2] == 255


def test_a_frame_that_fits_is_not_touched():
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    for how in ("crop", "pad", "stretch"):
        assert (fit(picture, (64, 48), how) == picture).all()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("strength", [0.1, 0.3, 0.4, 0.5, 0.74, 1.0])
def test_strength_is_what_diffusers_makes_of_it(strength, count):
    from diffusers import LCMScheduler

    scheduler = LCMScheduler()
    scheduler.set_timesteps(count, original_inference_steps=50, strength=strength)
    assert steps_of(strength, count) == tuple((999 - int(t)) // 20 for t in scheduler.timesteps)


def test_strength_is_in_range_and_large_enough():
    assert steps_of(0.4, 2) == (30, 40) and steps_of(0.04, 2) == (48, 49)
    for strength, count in ((0, 1), (-1, 1), (1.01, 1), (float("nan"), 1), (0.02, 2)):
        with pytest.raises(UsageError, match="--strength"):
            steps_of(strength, count)
