"""Which parameters of the UNet are trained."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from live2diff.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

# Short names for what is usually meant; any other word stands for the parameters whose name contains it.
ALIASES: dict[str, Callable[[str], bool]] = {
    "motion": lambda name: "motion_modules." in name,
    "depth": lambda name: name.startswith("depth_branch."),
    "conv_in": lambda name: name.startswith("conv_in."),  # the UNet's own; the depth branch has one, too
    "all": lambda name: True,
}

# What names of parameters are made of, beside numbers: known before there is a UNet, which takes seconds.
WORDS = """attentions attn1 attn2 bias blocks conv conv1 conv2 conv_in conv_norm_out conv_out conv_shortcut
    depth_branch down_blocks downsamplers ff linear_1 linear_2 mid_block motion_modules net norm norm1 norm2
    norm3 proj proj_in proj_out resnets time_emb_proj time_embedding to_k to_out to_q to_v transformer_blocks
    up_blocks upsamplers weight""".split()


def check_names(names: Sequence[str], lora: bool) -> None:
    """Refuse early what can be in no parameter's name, and nothing at all.

    Args:
        lora: whether a LoRA is trained, with which nothing else need be.

    Raises:
        UsageError: with the nearest name that can be.
    """
    if not names and not lora:
        raise UsageError("trainer.trainable=[]: nothing would be trained; name parts, or give trainer.lora")
    known = [*ALIASES, *WORDS]
    for name in names:
        for word in name.split("."):
            if not word.isdigit() and not any(word in other for other in known):
                near = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
                hint = f"did you mean {near[0]}?" if near else f"expected {', '.join(ALIASES)}"
                raise UsageError(f"trainer.trainable: {name!r} is in no parameter's name; {hint}")


def choose_trainable(unet: nn.Module, names: Sequence[str], depth: bool = True) -> None:
    """Let gradients reach exactly the parameters that `names` stand for: aliases, or parts of their names.

    Where a LoRA stands beside motion modules (`trainer.lora`), it is trained in their place, and `names` only
    say what is trained with it.

    Args:
        depth: whether depth is given in training; without it the depth branch has no part in anything, and
            processes would wait for its gradients.

    Raises:
        UsageError: a name that stands for nothing, or none at all and no LoRA.
    """
    parameters = dict(unet.named_parameters())
    for name in names:
        if not any(_meant(name)(parameter) for parameter in parameters):
            known = f"{', '.join(ALIASES)}, or a part of a name such as {next(iter(parameters))}"
            raise UsageError(f"trainer.trainable: {name!r} is in no parameter's name; expected {known}")
    has_lora = any(_is_lora(name) for name in parameters)
    check_names(names, has_lora)
    for name, parameter in parameters.items():
        chosen = any(_meant(choice)(name) for choice in names)
        if has_lora and ALIASES["motion"](name):
            chosen = _is_lora(name)
        parameter.requires_grad_(chosen and (depth or not ALIASES["depth"](name)))
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise UsageError(
            f"trainer.trainable={list(names)}: without trainer.depth=true nothing would be trained"
        )


def _meant(name: str) -> Callable[[str], bool]:
    return ALIASES.get(name, lambda parameter: name in parameter)


def _is_lora(parameter: str) -> bool:
    return ".lora_A." in parameter or ".lora_B." in parameter
