"""Depth error from its formulas, on maps and through a net."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from live2diff.errors import CheckpointError, UsageError
from live2diff.eval.depth_mse import DepthMse, DepthNet, depth_mse, depth_mse_aligned, stretched
from tests.eval.videos import pan, texture

CPU = torch.device("cpu")


def maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    source, pred = np.random.default_rng(seed).gamma(2, 300, (2, 24, 32))
    return source, pred


def test_scale_and_offset_do_not_count():
    source, pred = maps(0)
    for error in (depth_mse, depth_mse_aligned):
        assert error(source, pred) > 0.01
        assert error(source, 7 * source - 30) == pytest.approx(0, abs=1e-12)
        assert error(3 * source + 5, 0.1 * pred + 2) == pytest.approx(error(source, pred), rel=1e-9)


def test_aligned_is_least_squares():
    source, pred = maps(1)
    pred = source + 0.5 * pred
    wanted = (source - source.min()) / (source.max() - source.min())
    system = np.stack([pred.ravel(), np.ones(pred.size)], axis=1)
    _, residual, _, _ = np.linalg.lstsq(system, wanted.ravel(), rcond=None)
    assert depth_mse_aligned(source, pred) == pytest.approx(residual[0] / pred.size, rel=1e-9)


def test_upside_down_is_not_aligned():
    source, _ = maps(2)
    assert depth_mse_aligned(source, -source) == pytest.approx(stretched(source).var())


def test_extremes():
    ramp = np.linspace(0, 1, 101)[None]
    assert depth_mse(ramp, -ramp) == pytest.approx(np.mean((2 * ramp - 1) ** 2))
    flat = np.full((4, 4), 3.0)
    assert depth_mse(flat, flat) == depth_mse_aligned(flat, flat) == 0
    corner = np.zeros((4, 4))
    corner[0, 0] = 1
    assert depth_mse(corner, flat) == 1 / 16
    assert depth_mse_aligned(corner, flat) == pytest.approx(corner.var())


def test_through_a_net(depth_model):
    net = DepthNet(str(depth_model), CPU)
    metric = DepthMse(net)
    source, pred = pan(3), np.stack([texture(48, 64, seed) for seed in (5, 6, 7)])
    measurement = metric.begin()
    for before, after in zip(source, pred, strict=True):
        measurement.add(before, after)
    scores = measurement.scores()
    raw = [net([before, after]) for before, after in zip(source, pred, strict=True)]
    for name, error in (("depth_mse", depth_mse), ("depth_mse_aligned", depth_mse_aligned)):
        assert scores[name].per_frame == [error(*each) for each in raw]
        assert scores[name].value == pytest.approx(np.mean([error(*each) for each in raw]))
        assert scores[name].value > 0
    same = metric.begin()
    same.add(source[0], source[0])
    assert [score.value for score in same.scores().values()] == [0, pytest.approx(0, abs=1e-12)]


def test_the_signature_names_the_net(depth_model):
    signatures = DepthMse(DepthNet(str(depth_model), CPU)).signatures()
    one, two = signatures["depth_mse"], signatures["depth_mse_aligned"]
    assert str(one["model"]).startswith("DPT ") and one["seen_at"] == "64x64"
    assert one["normalisation"] != two["normalisation"]


def test_a_net_that_is_none(tmp_path):
    with pytest.raises(UsageError, match="needs depth_model=FOLDER"):
        DepthNet(None, CPU)
    with pytest.raises(CheckpointError, match="is not on this machine"):
        DepthNet(str(tmp_path / "nowhere"), CPU)
    (tmp_path / "net.pt").write_bytes(b"x")
    with pytest.raises(UsageError, match="name says no network; known: dpt_hybrid"):
        DepthNet(str(tmp_path / "net.pt"), CPU)
