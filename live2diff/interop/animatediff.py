"""AnimateDiff's key layout for motion modules, which the public Live2Diff checkpoint shares.

    {down,up}_blocks.{i}.motion_modules.{j}.temporal_transformer.
        norm, proj_in, proj_out
        transformer_blocks.0.attention_blocks.{0,1}.{to_q,to_k,to_v,to_out.0}
        transformer_blocks.0.attention_blocks.{0,1}.pos_encoder.pe     (1, 24 or 32, C)
        transformer_blocks.0.norms.{0,1}, ff.net.{0.proj,2}, ff_norm

diffusers (and so our UNet) calls the two attentions attn1 and attn2, the norms norm1 to norm3, and keeps one
table of positional encodings per block.
"""

from __future__ import annotations

import re

import torch

from live2diff.errors import CheckpointError
from live2diff.model.unet import CausalUNet

State = dict[str, torch.Tensor]

_RENAMES = [
    (r"\.temporal_transformer\.", "."),
    (r"\.attention_blocks\.0\.pos_encoder\.", ".pos_embed."),
    (r"\.attention_blocks\.0\.", ".attn1."),
    (r"\.attention_blocks\.1\.", ".attn2."),
    (r"\.norms\.0\.", ".norm1."),
    (r"\.norms\.1\.", ".norm2."),
    (r"\.ff_norm\.", ".norm3."),
]
# The second attention's table equals the first's; both are the fixed sinusoid.
_DROPPED = re.compile(r"\.attention_blocks\.1\.pos_encoder\.")


def unwrap(state: dict) -> State:
    """Undo the wrappings seen in the wild: a `state_dict` around everything, a `module.` before every key."""
    while isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    return {key.removeprefix("module."): value for key, value in tensors.items()}


def motion_keys_to_ours(state: State) -> State:
    """Rename motion-module keys to our UNet's; other keys pass unchanged."""
    renamed = {}
    for key, value in state.items():
        if "motion_modules." in key:
            if _DROPPED.search(key):
                continue
            for pattern, replacement in _RENAMES:
                key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed


def load_motion_modules(unet: CausalUNet, state: dict, name: str = "motion checkpoint") -> None:
    """Initialise the temporal modules from an AnimateDiff checkpoint (v1, v2, v3; any wrapping), in place.

    A mid-block module is dropped when our UNet has none. Tables of positional encodings may be longer or
    shorter than ours, as long as they cover the window: both hold the same sinusoid, and ours is kept.

    Raises:
        CheckpointError: a motion weight is missing, unknown or of another shape; `unet` is then unchanged.
    """
    given = {k: v for k, v in motion_keys_to_ours(unwrap(state)).items() if ".motion_modules." in k}
    if not hasattr(unet.mid_block, "motion_modules"):
        given = {k: v for k, v in given.items() if not k.startswith("mid_block.")}
    for key in [key for key in given if key.endswith("pos_embed.pe")]:
        if given.pop(key).shape[1] < unet.window:
            raise CheckpointError(
                f"{name}: {key} has fewer positions than the window of {unet.window} frames"
            )
    own = {k: v for k, v in unet.state_dict().items() if ".motion_modules." in k and "pos_embed" not in k}
    check_fit(given, own, name)
    unet.load_state_dict(given, strict=False)


def check_fit(given: State, own: State, name: str) -> None:
    """Raise CheckpointError, naming the first offender, unless both have the same keys and shapes."""
    for key in own:
        if key not in given:
            missing = sum(k not in given for k in own)
            raise CheckpointError(f"{name}: lacks {key} ({missing} of {len(own)} weights missing)")
        if given[key].shape != own[key].shape:
            shape, expected = tuple(given[key].shape), tuple(own[key].shape)
            raise CheckpointError(f"{name}: {key} has shape {shape}, this model needs {expected}")
    for key in given:
        if key not in own:
            raise CheckpointError(f"{name}: has {key}, which this model does not")
