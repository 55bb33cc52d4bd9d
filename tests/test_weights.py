"""One door for weight files: whatever their form, name and wrapping, the same tensors come out."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from live2diff.errors import CheckpointError
from live2diff.weights import fit_weights, initialise, read_folder, read_weights, without_weights

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}
WRAPPED = {
    "flat": STATE,
    "state_dict": {"state_dict": STATE, "epoch": 3, "optimizer": {"lr": 1.0}},
    "model": {"model": STATE},
    "twice": {"state_dict": {"model": STATE}},
    "module": {f"module.{key}": value for key, value in STATE.items()},
    "module in state_dict": {"state_dict": {f"module.{key}": value for key, value in STATE.items()}},
    "notes": {**STATE, "epoch": 3, "animatediff_config": {"unet": "v3"}, "recipe": "merge of a and b"},
}


@pytest.mark.parametrize("name", ["weights.ckpt", "weights.safetensors", "weights"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapping", WRAPPED)
def test_pytorch_files(tmp_path, wrapping, zipped, name):
    """Of any name: people rename files."""
    torch.save(WRAPPED[wrapping], tmp_path / name, _use_new_zipfile_serialization=zipped)
    check(read_weights(tmp_path / name))


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.ckpt"])
def test_safetensors_files(tmp_path, name):
    save_file(STATE, tmp_path / name)
    check(read_weights(tmp_path / name))


def check(read):
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[key], value) for key, value in STATE.items())


def test_a_prefix_that_not_all_names_have_is_a_name(tmp_path):
    torch.save({"module.a": torch.zeros(1), "b.c": torch.zeros(1)}, tmp_path / "weights.pt")
    assert read_weights(tmp_path / "weights.pt").keys() == {"module.a", "b.c"}


def test_a_folder_prefers_safetensors_and_full_precision(tmp_path):
    torch.save({"a.weight": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert read_folder(tmp_path)["a.weight"] == 0
    save_file({"a.weight": torch.ones(1).half()}, tmp_path / "model.fp16.safetensors")
    assert read_folder(tmp_path)["a.weight"] == 1
    save_file({"a.weight": torch.ones(1) * 2}, tmp_path / "model.safetensors")
    assert read_folder(tmp_path)["a.weight"] == 2


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(2)
        self.register_buffer("places", torch.arange(4), persistent=False)


def test_a_model_without_weights_takes_them_from_a_file():
    state = Net().state_dict()
    with without_weights():
        model = Net()
    assert model.linear.weight.is_meta and torch.equal(model.places, torch.arange(4))
    fit_weights(
        model,
        {key: value.half() if value.is_floating_point() else value for key, value in state.items()},
        "x",
    )
    for key, value in model.state_dict().items():
        assert value.dtype == state[key].dtype and not value.is_meta
        torch.testing.assert_close(value, state[key], atol=1e-3, rtol=1e-3)


def test_what_no_file_gives_is_drawn_as_torch_does():
    torch.manual_seed(0)
    expected = nn.Linear(3, 2)
    with without_weights():
        model = Net()
    torch.manual_seed(0)
    initialise(model)
    assert torch.equal(model.linear.weight, expected.weight) and torch.equal(model.linear.bias, expected.bias)
    assert model.norm.weight.eq(1).all() and torch.equal(model.places, torch.arange(4))


def test_part_of_a_model():
    model = Net()
    norm = model.norm.weight.clone()
    given = {"linear.weight": torch.ones(2, 3), "linear.bias": torch.ones(2)}
    fit_weights(model, given, "x", only=lambda key: key.startswith("linear."))
    assert model.linear.weight.eq(1).all() and torch.equal(model.norm.weight, norm)
    with pytest.raises(
        CheckpointError, match=r"x: not weights of this model: 1 keys missing \(linear.bias\)"
    ):
        fit_weights(
            model, {"linear.weight": torch.ones(2, 3)}, "x", only=lambda key: key.startswith("linear.")
        )


def test_a_wrong_value_changes_nothing():
    model = Net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for value, message in (
        (torch.full((2,), float("nan")), "no finite floats"),
        (torch.ones(2, dtype=torch.int64), "no finite floats"),
    ):
        with pytest.raises(CheckpointError, match=message):
            fit_weights(model, {**before, "linear.weight": torch.ones(2, 3), "linear.bias": value}, "x")
    with pytest.raises(CheckpointError, match="no whole numbers"):
        fit_weights(model, {**before, "norm.num_batches_tracked": torch.tensor(1.0)}, "x")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
