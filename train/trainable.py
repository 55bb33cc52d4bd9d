"""Which parameters of the UNet are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from live2diff.errors import UsageError

# Short names for what is usually meant; any other word stands for the parameters whose name contains it.
ALIASES: dict[str, Callable[[str], bool]] = {
    "motion": lambda name: "motion_modules." in name,
    "depth": lambda name: name.startswith("depth_branch."),
    "conv_in": lambda name: name.startswith("conv_in."),  # the UNet's own; the depth branch has one, too
    "all": lambda name: True,
}


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
    if not names and not has_lora:
        raise UsageError("trainer.trainable=[]: nothing would be trained; name parts, or give trainer.lora")
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
