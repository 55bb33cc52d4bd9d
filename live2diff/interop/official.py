"""The public Live2Diff release: AnimateDiff's layout plus the depth branch as `flow_conv_in.`"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from live2diff.interop.animatediff import State, check_fit, motion_keys_to_ours, unwrap
from live2diff.model.unet import CausalUNet


def unet_from_official(
    state_dict: dict,
    block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
    cross_attention_dim: int = 768,
    window: int = 16,
    warmup: int = 8,
) -> CausalUNet:
    """Build our UNet from a checkpoint of the authors' release.

    Accepts a file with spatial weights and one with motion modules and depth branch alone; for the latter the
    spatial weights are left at their random initial values, with a warning, for the caller to load.

    Args:
        state_dict: tensors by key, possibly wrapped in `state_dict` and prefixed with `module.`.
        block_out_channels, cross_attention_dim: the backbone's widths, by default SD1.5's.
        window, warmup: L and Lw.

    Raises:
        CheckpointError: a weight is missing, unknown or of another shape.
    """
    state = {key: value for key, value in unwrap(state_dict).items() if "grid" not in key}
    given: State = {}
    for key, value in motion_keys_to_ours(state).items():
        given[key.replace("flow_conv_in.", "depth_branch.")] = value
    tables = [value.shape[1] for key, value in given.items() if key.endswith("pos_embed.pe")]
    unet = CausalUNet(
        block_out_channels=tuple(block_out_channels),
        cross_attention_dim=cross_attention_dim,
        motion_max_seq_length=max([*tables, window]),
        window=window,
        warmup=warmup,
    )
    own = unet.state_dict()
    if "conv_in.weight" not in given:
        own = {k: v for k, v in own.items() if ".motion_modules." in k or k.startswith("depth_branch.")}
        warnings.warn("the checkpoint has no spatial weights: load a base model's before use", stacklevel=2)
    check_fit(given, own, "official checkpoint")
    unet.load_state_dict(given, strict=False)
    return unet.eval()
