"""The metrics on real videos against a second implementation, written from the papers' formulas alone.

It shares nothing with the first: no streaming, no torch, loops where those are arrays of all frames at once,
and interpolation by weights of the four corners instead of along rows. Only flow and frames are given.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from live2diff.eval.clips import open_clip
from live2diff.eval.flicker import Flicker
from live2diff.eval.flow import Dis
from live2diff.eval.warp_error import WarpError
from live2diff.stream.fit import fit
from tests.conftest import ROOT

FEW = ("codec_hevc10_200.mp4", "people_woman_running_512.mp4", "animal_kitten_mildvfr.mp4")
SHARED = ROOT.parent / "shared/data/videos"
ALL = sorted(path.name for path in SHARED.glob("*") if path.suffix != ".tsv") if SHARED.is_dir() else ()


def frames_of(path: Path, count: int, size: tuple[int, int]) -> np.ndarray:
    with open_clip(str(path)) as source:
        frames = [fit(frame.picture, size) for frame, _ in zip(source, range(count), strict=False)]
    return np.stack(frames)


def translated(video: np.ndarray) -> np.ndarray:
    """Something like a translation: other colours, fewer levels, and a flicker of its own."""
    levels = 255 - video[..., ::-1] // 16 * 16
    flickering = levels + 12 * np.random.default_rng(0).choice([-1, 0, 1], size=(len(video), 1, 1, 1))
    return np.clip(flickering, 0, 255).astype(np.uint8)


def sampled(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear, as the weighted mean of the four pixels around each place."""
    rows, columns = values.shape[:2]
    total = np.zeros((*x.shape, values.shape[2]))
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = np.floor(x) + dx, np.floor(y) + dy
            weight = np.maximum(0, 1 - abs(x - column)) * np.maximum(0, 1 - abs(y - row))
            inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
            at = row.clip(0, rows - 1).astype(int), column.clip(0, columns - 1).astype(int)
            total += np.where(inside, weight, 0)[..., None] * values[at]
    return total


def lai_warp_error(source: np.ndarray, pred: np.ndarray) -> list[float]:
    """Lai et al. 2018, eq. 7; the mask of Ruder et al. 2016, eqs. 5 and 6; one number for each pair."""
    flow, errors = Dis(), []
    height, width = source.shape[1:3]
    y, x = np.mgrid[:height, :width].astype(float)
    for t in range(len(source) - 1):
        w = flow(source[t], source[t + 1]).astype(float)
        w_back = flow(source[t + 1], source[t]).astype(float)
        there_x, there_y = x + w[..., 0], y + w[..., 1]
        w_tilde = sampled(w_back, there_x, there_y)
        squares = (w**2).sum(2), (w_tilde**2).sum(2)
        disoccluded = ((w + w_tilde) ** 2).sum(2) > 0.01 * (squares[0] + squares[1]) + 0.5
        (uy, ux), (vy, vx) = np.gradient(w[..., 0]), np.gradient(w[..., 1])
        boundary = ux**2 + uy**2 + vx**2 + vy**2 > 0.01 * squares[0] + 0.002
        left = (there_x < 0) | (there_x > width - 1) | (there_y < 0) | (there_y > height - 1)
        m = ~(disoccluded | boundary | left)
        v, v_next = pred[t] / 255.0, sampled(pred[t + 1] / 255.0, there_x, there_y)
        norm = ((v - v_next) ** 2).sum(2)
        errors.append(norm[m].sum() / m.sum() / 3)
    return errors


def still_flicker(source: np.ndarray, pred: np.ndarray) -> float:
    """By convolution along time of whole arrays."""
    weights = np.array([0.299, 0.587, 0.114])
    before, after = ((video @ weights).round() / 255 for video in (source, pred))
    around = np.stack([cv2.boxFilter(frame, -1, (5, 5)) for frame in before])
    steps = abs(np.diff(around, axis=0)) <= 2 / 255
    still = steps[:-1] & steps[1:]
    high = sum(weight * after[i : len(after) - 2 + i] for i, weight in enumerate((0.25, -0.5, 0.25)))
    return float(np.sqrt((high[still] ** 2).mean()))


def check(path: Path, count: int, size: tuple[int, int]) -> None:
    source = frames_of(path, count, size)
    pred = translated(source)
    scores = {}
    for measurement in (WarpError(Dis()).begin(), Flicker().begin()):
        for frames in zip(source, pred, strict=True):
            measurement.add(*frames)
        scores |= measurement.scores()
    errors = lai_warp_error(source, pred)
    assert scores["warp_error"].per_frame[1:] == pytest.approx(errors, rel=1e-3)
    assert scores["warp_error"].value == pytest.approx(np.mean(errors), rel=1e-4)
    if scores["flicker"].value is not None:
        # Brightness is rounded to whole levels, and a pixel at the threshold may fall to either side.
        assert scores["flicker"].value == pytest.approx(still_flicker(source, pred), rel=0.01)


@pytest.mark.parametrize("name", FEW)
def test_a_few_videos(shared, name):
    check(shared / "data/videos" / name, 4, (160, 120))


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_every_video(shared, name):
    check(shared / "data/videos" / name, 6, (384, 288))
