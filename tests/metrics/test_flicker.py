"""What the flicker number says about videos whose flicker is known."""

from __future__ import annotations

import numpy as np
import pytest

from live2diff.metrics.flicker import flicker


def grey(values: list[float]) -> np.ndarray:
    """Frames of one brightness each."""
    return np.stack([np.full((4, 6, 3), value, np.uint8) for value in values])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([90] * 6, 0.0),
        ([0, 10, 20, 30, 40], 0.0),  # an even pace is motion, not flicker
        ([0, 255] * 3, 0.5),
        ([100, 110] * 4, 5 / 255),  # plus or minus 5
        ([0, 0, 255, 255] * 8, 0.25),  # half as fast: not the highest frequency
    ],
)
def test_known_flicker(values, expected):
    assert flicker(grey(values)) == pytest.approx(expected, abs=1e-6)


def test_half_the_picture_counts_by_its_energy():
    frames = grey([0, 255] * 3)
    frames[:, :, 3:] = 7
    assert flicker(frames) == pytest.approx(0.5 / 2**0.5, abs=1e-6)


def test_two_frames_are_too_few():
    with pytest.raises(ValueError, match="3 frames or more, not 2"):
        flicker(grey([0, 1]))
