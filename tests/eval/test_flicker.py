"""What the flicker number says about videos whose flicker is known."""

from __future__ import annotations

import numpy as np
import pytest

from live2diff.eval.flicker import Flicker, flicker, still_parts
from tests.eval.videos import noisy, pan, texture


def grey(values: list[float]) -> np.ndarray:
    """Frames of one brightness each."""
    return np.stack([np.full((4, 6, 3), value, np.uint8) for value in values])


def measured(source: np.ndarray, pred: np.ndarray):
    measurement = Flicker().begin()
    for before, after in zip(source, pred, strict=True):
        measurement.add(before, after)
    return measurement.scores()["flicker"]


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
    # The same, seen frame by frame over a source that stands still.
    still = grey([50] * len(values))
    assert measured(still, grey(values)).value == pytest.approx(expected, abs=1e-6)


def test_half_the_picture_counts_by_its_energy():
    frames = grey([0, 255] * 3)
    frames[:, :, 3:] = 7
    assert flicker(frames) == pytest.approx(0.5 / 2**0.5, abs=1e-6)


def test_two_frames_are_too_few():
    with pytest.raises(ValueError, match="3 frames or more, not 2"):
        flicker(grey([0, 1]))
    assert measured(grey([0, 1]), grey([0, 1])).reason == "fewer than 3 frames"


def test_levels_do_not_wrap_around():
    """In uint8, 0 - 2 * 255 + 0 would be 2."""
    assert flicker(grey([0, 255, 0])) == 0.5
    with pytest.raises(ValueError, match="float32, expected uint8"):
        flicker(grey([0, 255, 0]).astype(np.float32))


def test_more_noise_is_more_flicker():
    """Independent noise of deviation s has d of variance 6 s^2 / 16."""
    video = np.repeat(texture(60, 80)[None] // 2 + 64, 8, axis=0)
    values = [measured(video, noisy(video, strength)).value for strength in (0, 1, 2, 4, 8, 16)]
    assert values[0] == 0 and values == sorted(values) and len(set(values)) == 6
    # BT.601: what is left of three independent colours in the brightness.
    luma = 16 * np.sqrt(0.299**2 + 0.587**2 + 0.114**2)
    assert values[-1] == pytest.approx(np.sqrt(6 / 16) * luma / 255, rel=0.03)


def test_only_where_the_source_is_still():
    """The left half pans and the right one stands; what happens on the left does not count."""
    source = np.concatenate([pan(6, (40, 48), (4, 3)), np.repeat(texture(48, 40)[None], 6, axis=0)], axis=2)
    still = still_parts(source)
    assert still[:, :, 43:].all() and still[:, :, :37].mean() < 0.05
    left, right = np.zeros_like(source), np.zeros_like(source)
    left[::2, :, :37] = right[::2, :, 43:] = 200
    quiet, loud = measured(source, left).value, measured(source, right).value
    assert quiet is not None and loud is not None and quiet < 0.1 * loud
    assert loud == pytest.approx(flicker(right, still), abs=1e-6)


def test_nothing_still_is_a_reason():
    source = np.stack([np.full((20, 30, 3), 40 * number, np.uint8) for number in range(5)])
    score = measured(source, source)
    assert (score.value, score.reason) == (None, "no part of the source is still")
    assert np.isnan(flicker(source, still_parts(source)))


def test_frames_have_their_own_values():
    values = measured(grey([0] * 5), grey([0, 0, 255, 255, 255])).per_frame
    assert values == [None, pytest.approx(0.25), pytest.approx(0.25), 0.0, None]
