"""Resampling and cutting, on numbers only."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from data_prep.clips import plan_clips, resample

NTSC = Fraction(30000, 1001)


def even(count: int, rate: Fraction | int) -> list[float]:
    return [float(number / Fraction(rate)) for number in range(count)]


@pytest.mark.parametrize("rate", [Fraction(10), Fraction(24), NTSC, Fraction(60)])
@pytest.mark.parametrize("step_ms", [0, 1])
def test_a_constant_rate_kept_is_every_frame_once(rate: Fraction, step_ms: int):
    times = even(700, rate)
    if step_ms:  # as a container rounds them
        times = [round(time * 1000) / 1000 for time in times]
    assert resample((5, 695), times, rate, rate) == list(range(5, 695))


def test_24_to_8_is_every_third_frame():
    assert resample((0, 96), even(96, 24), Fraction(24), Fraction(8)) == list(range(0, 96, 3))


def test_variable_rate_shows_the_newest_frame_that_is_not_later():
    rng = np.random.default_rng(0)
    times = [0.0, *np.cumsum(rng.uniform(0.005, 0.3, 199))]
    fps = Fraction(12)
    chosen = resample((20, 180), times, Fraction(12), fps)
    for step, frame in enumerate(chosen):
        now = times[20] + step / 12
        assert times[frame] <= now + 0.1 / 12 + 1e-9
        assert frame == 179 or times[frame + 1] > now
    assert all(before <= after for before, after in pairwise(chosen))


def test_a_frame_is_held_over_a_gap():
    times = [0.0, 0.1, 0.2, 0.7, 0.8]
    assert resample((0, 5), times, Fraction(10), Fraction(10)) == [0, 1, 2, 2, 2, 2, 2, 3, 4]


def test_long_shots_are_cut_and_short_ends_dropped():
    shots = [(0, 250), (252, 260), (262, 400)]
    plan = plan_clips(shots, even(400, 10), Fraction(10), Fraction(10), min_frames=31, max_seconds=10.0)
    found = [(clip.shot, clip.number, clip.frames[0], clip.frames[-1] + 1) for clip in plan]
    assert found == [(0, 0, 0, 100), (0, 1, 100, 200), (0, 2, 200, 250), (2, 0, 262, 362), (2, 1, 362, 400)]
    assert plan[1].start_s == pytest.approx(10.0)


def test_a_clip_always_has_room_for_a_sample():
    plan = plan_clips([(0, 300)], even(300, 2), Fraction(2), Fraction(2), min_frames=61, max_seconds=10.0)
    assert [len(clip.frames) for clip in plan] == [61, 61, 61, 61]


def test_an_empty_shot_gives_nothing():
    assert resample((4, 4), even(9, 10), Fraction(10), Fraction(10)) == []
