"""Warp error where the truth is known: pans, a moving card, identical clips."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from live2diff.errors import UsageError
from live2diff.eval.flow import Dis
from live2diff.eval.metric import Measurement
from live2diff.eval.occlusion import visible, warp
from live2diff.eval.warp_error import WarpError, pair_error, warp_error
from tests.eval.videos import moving_card, noisy, pan, pan_flow, texture


def measured(measurement: Measurement, source: np.ndarray, pred: np.ndarray):
    for before, after in zip(source, pred, strict=True):
        measurement.add(before, after)
    return measurement.scores()


def test_a_pan_has_no_error_along_its_exact_flow():
    video, flow = pan(), pan_flow()
    assert warp_error(video, flow, -flow) == (0.0, [None, 0.0, 0.0, 0.0, 0.0])


def test_a_pan_by_parts_of_a_pixel_has_next_to_none():
    world = texture(72, 120).astype(np.float32)
    shift = np.float32([[1, 0, -1.5], [0, 1, -0.25]])
    first = world[8:64, 8:104]
    second = cv2.warpAffine(world, shift, (120, 72), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)[
        8:64, 8:104
    ]
    flow = np.full((1, 56, 96, 2), (1.5, 0.25), np.float32)
    video = np.stack([first, second]).clip(0, 255).round().astype(np.uint8)
    still = warp_error(video, 0 * flow, 0 * flow)[0]
    exact = warp_error(video, flow, -flow)[0]
    assert exact is not None and still is not None and exact < 1e-4 < 30 * exact < still


def test_estimated_flow_comes_close_on_a_pan():
    video = pan(4, (128, 96))
    errors = measured(WarpError(Dis()).begin(), video, video)["warp_error"]
    unmoved = warp_error(video, np.zeros((3, 96, 128, 2)), mask=np.ones((3, 96, 128), bool))[0]
    assert errors.value is not None and unmoved is not None
    assert errors.value < 1e-4 and unmoved > 100 * errors.value


def test_the_error_of_noise_is_its_variance():
    """Independent noise of deviation s on both frames differs by 2 s^2 in the mean."""
    video = np.full((2, 200, 200, 3), 128, np.uint8)
    flow = np.zeros((1, 200, 200, 2), np.float32)
    error, _ = warp_error(noisy(video, 10), flow, flow)
    assert error == pytest.approx(2 * (10 / 255) ** 2, rel=0.02)


def test_flow_of_the_source_judges_the_output():
    """An output that stands still under a moving source is wrong, however smooth it is."""
    source = pan(3, (128, 96))
    frozen = np.repeat(source[:1], 3, axis=0)
    metric = WarpError(Dis())
    moving, standing = (
        measured(metric.begin(), source, pred)["warp_error"].value for pred in (source, frozen)
    )
    assert moving is not None and standing is not None and standing > 100 * moving


def test_levels_do_not_wrap_around():
    """In uint8, 0 - 255 would be 1."""
    black, white = np.zeros((40, 40, 3), np.uint8), np.full((40, 40, 3), 255, np.uint8)
    flow, everywhere = np.zeros((40, 40, 2), np.float32), np.ones((40, 40), bool)
    assert pair_error(black, white, flow, everywhere) == pair_error(white, black, flow, everywhere) == 1.0


def test_frames_that_are_not_uint8_are_refused():
    frames = np.zeros((2, 8, 8, 3), np.float32)
    with pytest.raises(ValueError, match="float32 and float32, expected uint8"):
        warp_error(frames, np.zeros((1, 8, 8, 2)), np.zeros((1, 8, 8, 2)))


def test_the_mask_is_the_region_that_is_hidden():
    """To the pixel on a rim of one, where the flow's gradient is a motion boundary."""
    frames, forward, backward, hidden = moving_card()
    seen = visible(forward, backward)
    rim = cv2.morphologyEx((forward[..., 0] > 0).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
    assert not seen[hidden].any()
    assert seen[~(hidden | rim)].all()
    assert not seen[rim].all()  # the boundary rule does something
    assert warp_error(frames, forward[None], backward[None])[0] == 0.0
    # Without the mask the hidden part of the wall is compared with the card.
    everything = np.ones((1, 72, 96), bool)
    assert warp_error(frames, forward[None], mask=everything)[0] > 1e-4


def test_what_leaves_the_frame_never_counts():
    flow = np.full((10, 10, 2), (4, 0), np.float32)
    moved, inside = warp(np.arange(100, dtype=np.float32).reshape(10, 10, 1), flow)
    assert inside[:, :6].all() and not inside[:, 6:].any()
    np.testing.assert_array_equal(moved[3, :6, 0], np.arange(34, 40))
    away = np.full((1, 10, 10, 2), 99, np.float32)
    assert warp_error(np.zeros((2, 10, 10, 3), np.uint8), away, mask=np.ones((1, 10, 10), bool)) == (
        None,
        [None, None],
    )


@pytest.mark.parametrize("given", [{}, {"mask": 1, "backward": 1}])
def test_backward_or_mask(given):
    flow = np.zeros((1, 8, 8, 2))
    with pytest.raises(ValueError, match="one of them"):
        warp_error(np.zeros((2, 8, 8, 3), np.uint8), flow, **dict.fromkeys(given, flow))
    with pytest.raises(ValueError, match="need 2 flows, not 1, 1"):
        warp_error(np.zeros((3, 8, 8, 3), np.uint8), flow, flow)


def test_too_small_for_the_flow_is_said():
    with pytest.raises(UsageError, match="16 pixels or more"):
        Dis()(*np.zeros((2, 8, 40, 3), np.uint8))


def test_one_frame_has_no_error():
    score = measured(WarpError(Dis()).begin(), pan(1), pan(1))["warp_error"]
    assert (score.value, score.per_frame, score.reason) == (None, [None], "fewer than 2 frames")
