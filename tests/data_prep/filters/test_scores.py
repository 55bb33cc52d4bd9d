"""What a clip scores, and what the thresholds make of it."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from data_prep.filters import Scores, reason_to_drop
from tests.data_prep.filters.pictures import HEIGHT, WIDTH, pan, texture


def scores_of(frames, fps: float = 12) -> dict:
    scores = Scores(len(frames), fps)
    for frame in frames:
        scores.see(frame)
    return scores.values()


def dark(level: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


@pytest.mark.parametrize("fps", [8, 12, 25, 60])
@pytest.mark.parametrize("speed", [0.05, 0.3, 1.0])
def test_a_pan_scores_its_speed_at_every_frame_rate(fps: float, speed: float):
    assert scores_of(pan(1.5, fps, speed), fps)["motion"] == pytest.approx(speed, rel=0.15)


def test_a_still_clip_scores_no_motion_and_a_noisy_one_next_to_none():
    still = texture(0)
    assert scores_of([still] * 24)["motion"] == 0
    rng = np.random.default_rng(0)
    noise = [np.clip(still + rng.normal(0, 1.5, still.shape), 0, 255).astype(np.uint8) for _ in range(24)]
    assert scores_of(noise)["motion"] < 0.003


def test_motion_of_a_part_counts_by_its_area():
    moving, still = pan(2, 12, 0.4, seed=1), texture(0)
    half = [np.concatenate([still[: HEIGHT // 2], frame[HEIGHT // 2 :]]) for frame in moving]
    assert scores_of(half)["motion"] == pytest.approx(0.2, rel=0.2)


def test_size_does_not_change_a_score():
    large, small = scores_of(pan(2, 12, 0.3)), scores_of([frame[::2, ::2] for frame in pan(2, 12, 0.3)])
    for name in ("motion", "brightness", "contrast"):
        assert small[name] == pytest.approx(large[name], rel=0.1), name


def test_brightness_and_contrast_are_those_of_the_pictures():
    assert scores_of([dark(51)] * 16)["brightness"] == pytest.approx(0.2, abs=0.005)
    assert scores_of([dark(51)] * 16)["contrast"] == 0
    halves = np.concatenate([dark(0)[:, : WIDTH // 2], dark(255)[:, : WIDTH // 2]], axis=1)
    found = scores_of([halves] * 16)
    assert found["brightness"] == pytest.approx(0.5, abs=0.01)
    assert found["contrast"] == pytest.approx(0.5, abs=0.01)


def test_a_fade_scores_the_mean_of_what_it_shows():
    whole, picture = scores_of([texture(0)] * 20), texture(0).astype(float)
    fade = scores_of([(picture * number / 19).astype(np.uint8) for number in range(20)])
    assert fade["brightness"] == pytest.approx(whole["brightness"] / 2, rel=0.02)
    assert fade["contrast"] == pytest.approx(whole["contrast"] / 2, rel=0.03)


@pytest.mark.parametrize("level", [0, 8, 16, 250])
@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (18, 0), (0, 36), (18, 24)])
def test_letterbox_is_the_share_of_the_bars(level: int, rows: int, columns: int):
    frames = pan(2, 12, 0.3)
    inner = (slice(rows, HEIGHT - rows), slice(columns, WIDTH - columns))
    rng = np.random.default_rng(0)
    for number, frame in enumerate(frames):
        bars = dark(level) + rng.integers(0, 4, frame.shape).astype(np.uint8)  # as compression leaves them
        bars[inner] = frame[inner]
        frames[number] = bars
    share = 1 - (HEIGHT - 2 * rows) * (WIDTH - 2 * columns) / (HEIGHT * WIDTH)
    assert scores_of(frames)["letterbox"] == pytest.approx(share, abs=0.03)


def test_borders_that_move_or_have_a_colour_are_no_bars():
    sky = [frame.copy() for frame in pan(2, 12, 0.3)]
    rising = [frame.copy() for frame in sky]
    for number, (blue, wipe) in enumerate(zip(sky, rising, strict=True)):
        blue[:40] = (90, 140, 220)
        wipe[: 6 * number] = 0  # a dark border that comes in from above: the first frame has none
    assert scores_of(sky)["letterbox"] == 0
    assert scores_of(rising)["letterbox"] == 0
    assert scores_of([dark(0)] * 16)["letterbox"] == 1


def test_every_threshold_drops_what_it_is_for_and_null_keeps_all(tiny):
    good = scores_of(pan(2, 12, 0.3))
    barred = [frame.copy() for frame in pan(2, 12, 0.3)]
    for frame in barred:
        frame[:45] = frame[-45:] = 0
    cases = {
        "black": scores_of([dark(1)] * 16),
        "nothing to see": scores_of([dark(120)] * 16),
        "static": scores_of([texture(0)] * 16),
        "letterboxed": scores_of(barred),
    }
    off = replace(tiny, min_motion=None, min_brightness=None, min_contrast=None, max_letterbox=None)
    assert reason_to_drop(good, tiny) is None
    for kind, scores in cases.items():
        reason = reason_to_drop(scores, tiny)
        assert reason and reason.startswith(f"{kind}: ") and "wanted" in reason
        assert reason_to_drop(scores, off) is None


def test_no_frame_is_held():
    """Memory must not grow with the length of a clip."""
    still = [texture(number) for number in range(4)]
    scores = Scores(400, 25)
    tracemalloc.start()
    for number in range(400):
        scores.see(still[number % 4])
        if number == 100:
            early = tracemalloc.get_traced_memory()[0]
    assert tracemalloc.get_traced_memory()[0] - early < HEIGHT * WIDTH * 10
    tracemalloc.stop()
