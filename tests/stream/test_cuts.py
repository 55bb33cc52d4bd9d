"""Cuts in a live picture."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest

from live2diff.stream.cuts import LiveCuts
from live2diff.video import VideoReader


def cuts_in(frames, shortest=8):
    cuts = LiveCuts(shortest)
    return [number for number, frame in enumerate(frames) if cuts.see(frame)]


def shot(hue: int, frames: int) -> list[np.ndarray]:
    """A gradient that drifts."""
    y, x = np.mgrid[:90, :160]
    return [
        np.stack([(x + step) % 256, (y * 2 + hue) % 256, np.full_like(x, hue)], -1).astype(np.uint8)
        for step in range(frames)
    ]


def test_a_cut_is_seen_at_its_first_frame():
    assert cuts_in([*shot(0, 20), *shot(200, 20), *shot(90, 20)]) == [20, 40]


def test_a_drifting_shot_has_none():
    assert cuts_in(shot(120, 60)) == []


def test_a_flash_is_not_two_scenes():
    frames = shot(30, 40)
    frames[20] = np.full_like(frames[20], 255)
    assert cuts_in(frames) == [20]


def test_wild_motion_is_no_cut():
    frames = [shot(30, 200)[step * 37 % 200] for step in range(40)]
    assert np.abs(np.diff(np.stack(frames).max(-1).astype(int), axis=0)).mean() > 20
    assert cuts_in(frames) == []


@pytest.mark.slow
def test_listed_cuts_of_real_videos(shared):
    """Against the cuts that the list of real videos states, give or take two frames: measured 12 and 3."""
    found = listed = extra = 0
    with open(shared / "data/videos/index.tsv", encoding="utf-8") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            truth = [int(cut) for cut in re.findall(r"\d+", row["scene_cuts_verified"])]
            with VideoReader(shared / "data/videos" / row["path"]) as video:
                seen = cuts_in(video)
            hits = sum(any(abs(cut - other) <= 2 for other in seen) for cut in truth)
            found, listed, extra = found + hits, listed + len(truth), extra + len(seen) - hits
    assert listed == 14 and found >= 11 and extra <= 5
