"""The public Live2Diff release: AnimateDiff's layout plus the depth branch as `flow_conv_in.`"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from live2diff.interop.animatediff import State, load_motion_modules
from live2diff.model.unet import CausalUNet
from live2diff.weights import initialise, without_weights


def unet_from_official(
    state: State,
    block_out_channels: Sequence[int] = (320, 640, 1280, 1280),
    cross_attention_dim: int = 768,
    window: int = 16,
    warmup: int = 8,
) -> CausalUNet:
    """Build our UNet from a checkpoint of the authors' release.

    Accepts a file with spatial weights and one with motion modules and depth branch alone, as the published
    one is; for the latter the spatial weights start at random, with a warning, for the caller to load.

    Args:
        state: as `read_weights` gives it.
        block_out_channels, cross_attention_dim: the backbone's widths, by default SD1.5's.
        window, warmup: L and Lw.

    Raises:
        CheckpointError: a weight is missing, unknown or of another shape.
    """
    with without_weights():
        unet = CausalUNet(
            block_out_channels=tuple(block_out_channels),
            cross_attention_dim=cross_attention_dim,
            window=window,
            warmup=warmup,
        )
    load_motion_modules(unet, state, "official checkpoint")
    if unet.conv_in.weight.is_meta:
        warnings.warn("the checkpoint has no spatial weights: load a base model's before use", stacklevel=2)
    initialise(unet)
    return unet.eval()
