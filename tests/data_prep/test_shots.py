"""Cuts are found where they are, and shots keep clear of them."""

import numpy as np
import pytest

from data_prep.decode import decode, open_video
from data_prep.shots import CutDetector, split_shots
from tests.data_prep.videos import blocks


def cuts_in(path) -> list[int]:
    detector = CutDetector(ratio=2.5, change=15.0)
    with open_video(str(path)) as (container, stream):
        for frame in decode(container, stream):
            detector.see(frame)
    return detector.cuts


def test_a_hard_cut_is_found_at_its_frame_and_motion_is_not_a_cut(movie):
    shots = [blocks(count, seed) for seed, count in enumerate((31, 40, 25))]
    assert cuts_in(movie("cuts.mp4", sum(shots, []))) == [31, 71]


def test_a_pan_is_not_a_cut(movie):
    wide = np.concatenate([blocks(1, seed, (96, 64))[0] for seed in range(6)], axis=1)
    assert cuts_in(movie("pan.mp4", [wide[:, left : left + 96] for left in range(0, 480, 6)])) == []


def test_a_barely_visible_tint_of_a_grey_picture_is_not_a_cut(movie):
    """The hue of grey is noise: it may jump from frame to frame, as in a fade, and no one sees it."""
    grey = blocks(1, 3)[0].mean(2, keepdims=True).repeat(3, 2)
    frames = [
        (grey + (3 if number < 30 else -3) * np.array([-1, 1, -1])).clip(0, 255) for number in range(60)
    ]
    assert cuts_in(movie("tint.mp4", [frame.astype(np.uint8) for frame in frames])) == []


def test_frames_spoiled_by_damage_belong_to_no_shot():
    assert split_shots(60, [20, 40], 0, [(17, 20), (40, 40)]) == [(0, 17), (20, 40), (40, 60)]
    assert split_shots(60, [20, 40], 2, [(17, 20)]) == [(0, 17), (22, 38), (42, 60)]
    assert split_shots(60, [20, 40], 0, [(10, 40)]) == [(0, 10), (20, 20), (40, 60)]
    assert split_shots(60, [], 0, [(55, 60)]) == [(0, 55)]


@pytest.mark.parametrize("trim", [0, 2, 9])
def test_shots_cover_all_but_the_trimmed_frames(trim: int):
    shots = split_shots(60, [20, 40, 41], trim)
    assert len(shots) == 4
    assert shots[0] == (0, 20 - trim) and shots[-1] == (41 + trim, 60)
    kept = {frame for first, stop in shots for frame in range(first, stop)}
    assert kept == {
        frame for frame in range(60) if not any(-trim <= frame - cut < trim for cut in (20, 40, 41))
    }
