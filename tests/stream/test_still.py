"""Frames like the last one cost nothing, and none is lost."""

from __future__ import annotations

import numpy as np
import pytest

from live2diff.errors import UsageError
from live2diff.stream.still import SkipStill
from tests.stream.media import Echo


class Counting(Echo):
    """Counts what it denoises; every output carries the number of its frame."""

    unsettled = False

    def __init__(self, warmup=4, rows=3):
        super().__init__((8, 8), warmup, rows)
        self.pushed = 0

    def push(self, frame):
        self.pushed += 1
        return super().push(frame)

    def change(self, *args, **kwargs):
        return []


def scene(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def play(frames, threshold=0.98, **kwargs):
    skip = SkipStill(Counting(**kwargs), threshold)
    skip.stream.unsettled = False
    done = []
    for number, frame in enumerate(frames):
        skip.stream.unsettled = 0 < number < skip.warmup
        done += skip.push(frame)
    return skip, [*done, *skip.flush()]


def test_moving_pictures_are_left_alone():
    frames = [scene(number) for number in range(20)]
    skip, done = play(frames)
    assert skip.skipped == 0 and np.array_equal(done, frames)


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_still_pictures_are_denoised_once(rows):
    shown = [0, 1, 2, 3, 4, 5, 5, 5, 5, 6, 7, 7, 8]
    skip, done = play([scene(number) for number in shown], rows=rows)
    assert np.array_equal(done, [scene(number) for number in shown])
    assert skip.skipped == 4 and skip.stream.pushed == 9


def test_at_rest_nothing_waits_in_the_pipeline():
    skip = SkipStill(Counting(rows=3), 0.98)
    for number in range(8):
        skip.push(scene(number))
    assert len(skip.push(scene(7))) == 3  # two were waiting
    assert len(skip.push(scene(7))) == 1


def test_noise_is_similar_and_slow_drift_is_not_for_ever():
    base = scene(0).astype(int)
    grain = np.random.default_rng(1)
    noisy = [np.clip(base + grain.integers(-2, 3, base.shape), 0, 255).astype(np.uint8) for _ in range(20)]
    assert play(noisy)[0].skipped == 16
    drift = [np.clip(base + 3 * step, 0, 255).astype(np.uint8) for step in range(40)]
    skip, done = play(drift)
    assert 3 <= skip.stream.pushed - 4 <= 20 and len(done) == 40


def test_a_picture_that_only_gets_darker_is_another():
    """Its cosine is 1."""
    bright, dark = (np.full((8, 8, 3), value, np.uint8) for value in (250, 160))
    skip, _ = play([bright] * 6 + [dark] * 2)
    assert skip.stream.pushed == 4 + 1


def test_a_change_is_shown_though_nothing_moves():
    skip = SkipStill(Counting(), 0.98)
    for _ in range(8):
        skip.push(scene(0))
    before = skip.stream.pushed
    skip.change("another prompt")
    skip.push(scene(0))
    assert skip.stream.pushed == before + 1


def test_thresholds_that_cannot_be():
    for threshold in (0, -1, 1.5, float("nan")):
        with pytest.raises(UsageError, match="--similar-frame-skip"):
            SkipStill(Counting(), threshold)
