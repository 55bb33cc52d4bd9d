"""Which parameters are trained."""

from __future__ import annotations

import pytest
import torch

from live2diff.errors import UsageError
from tests.model.tiny import make_unet
from train.trainable import choose_trainable


def chosen(*names: str) -> set[str]:
    unet = make_unet()
    choose_trainable(unet, names)
    return {name for name, parameter in unet.named_parameters() if parameter.requires_grad}


ALL = {name for name, _ in make_unet().named_parameters()}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["all"], ALL),
        ([""], ALL),
        (["motion"], {name for name in ALL if "motion_modules" in name}),
        (["motion_modules"], {name for name in ALL if "motion_modules" in name}),
        (["depth"], {name for name in ALL if name.startswith("depth_branch")}),
        (["conv_in"], {"conv_in.weight", "conv_in.bias"}),  # not depth_branch.conv_in
        (
            ["conv_in", "motion", "depth"],
            {n for n in ALL if "motion" in n or n.startswith(("depth", "conv_in"))},
        ),
        (["attn1.to_q"], {name for name in ALL if "attn1.to_q" in name}),
        (
            ["up_blocks.3.motion_modules"],
            {name for name in ALL if name.startswith("up_blocks.3.motion_modules")},
        ),
    ],
)
def test_aliases_and_parts_of_names(names, expected):
    assert expected and chosen(*names) == expected


def test_what_was_chosen_before_is_forgotten():
    unet = make_unet()
    choose_trainable(unet, ["all"])
    choose_trainable(unet, ["conv_in"])
    assert sum(parameter.requires_grad for parameter in unet.parameters()) == 2


@pytest.mark.parametrize("name", ["motoin", "Motion", "depth_brnch"])
def test_a_name_that_stands_for_nothing_is_refused(name):
    with pytest.raises(
        UsageError, match=f"'{name}' is in no parameter's name; expected motion, depth, conv_in"
    ):
        chosen("motion", name)


def test_a_model_without_depth_branch_has_none_to_train():
    with pytest.raises(UsageError, match="'depth' is in no parameter's name"):
        choose_trainable(make_unet(depth_channels=None), ["depth"])


def test_nothing_at_all_is_refused():
    with pytest.raises(UsageError, match=r"trainer.trainable=\[\]: nothing would be trained"):
        choose_trainable(torch.nn.Linear(1, 1), [])


def test_without_depth_the_depth_branch_has_no_part():
    """It is in no forward pass: processes would wait for its gradients for ever."""
    unet = make_unet()
    choose_trainable(unet, ["all"], depth=False)
    trained = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert trained and not any(name.startswith("depth_branch.") for name in trained)
    with pytest.raises(UsageError, match="without trainer.depth=true nothing would be trained"):
        choose_trainable(unet, ["depth"], depth=False)
