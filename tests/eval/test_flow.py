"""Flow estimators: what a pan gives, whose weights they have, and what is said when these are missing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from live2diff.errors import CheckpointError, UsageError
from live2diff.eval.flow import Dis, Raft, make_flow
from live2diff.images import to_tensor
from tests.eval.videos import pan


def test_dis_finds_a_pan():
    first, second = pan(2, (160, 120), (3, 2))
    flow = Dis()(first, second)
    assert flow.shape == (120, 160, 2) and flow.dtype == np.float32
    assert np.abs(flow[8:-8, 8:-8] - (-3, -2)).mean() < 0.05


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    from torchvision.models.optical_flow import raft_large

    torch.manual_seed(5)
    model = raft_large(weights=None).eval()
    path = tmp_path_factory.mktemp("raft") / "raft_large.pth"
    torch.save(model.state_dict(), path)
    return path, model


def test_raft_is_torchvision_s(weights):
    """The file's weights, in torchvision's network; sides that are no multiple of 8 are padded and cut."""
    path, model = weights
    first, second = pan(2, (136, 124))
    raft = make_flow("raft_large", str(path))
    flow = raft(first, second)
    padded = [np.pad(frame, ((0, 4), (0, 0), (0, 0)), mode="edge") for frame in (first, second)]
    with torch.no_grad():
        wanted = model(*(to_tensor(frame[None])[:, 0][None] for frame in padded))[-1]
    np.testing.assert_allclose(flow, wanted[0].permute(1, 2, 0)[:124], atol=1e-4)
    assert isinstance(raft, Raft) and raft.name.startswith("raft_large ")
    assert raft.name != Dis().name


def test_raft_s_name_is_of_its_weights(weights, tmp_path):
    path, model = weights
    state = {**model.state_dict()}
    key = "feature_encoder.convnormrelu.0.bias"
    state[key] = state[key] + 1
    torch.save(state, tmp_path / "other.pth")
    assert (
        make_flow("raft_large", str(tmp_path / "other.pth")).name != make_flow("raft_large", str(path)).name
    )


def test_missing_weights_are_one_line(tmp_path):
    with pytest.raises(UsageError, match="needs raft_weights=FILE.*nothing is downloaded"):
        make_flow("raft_large")
    with pytest.raises(CheckpointError, match="raft_weights=.*none.pth: is not on this machine"):
        make_flow("raft_large", str(tmp_path / "none.pth"))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="not weights of this model"):
        make_flow("raft_large", str(tmp_path / "other.pth"))
    with pytest.raises(UsageError, match="flow=farneback: expected one of dis, raft_large"):
        make_flow("farneback")
