"""Who may see whom in time: the one place that answers it for training, streaming and the ablations.

Legend: F frames of a clip, L = window, Lw = warm-up frames. Rows are queries, columns are keys.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch

Mask = Literal["bidirectional", "causal", "warmup_causal"]
MASKS: tuple[str, ...] = get_args(Mask)


def visible(mask: Mask, frames: int, window: int, warmup: int) -> torch.Tensor:
    """Which keys each query attends to: bool (F, F), True = visible.

    - `bidirectional`: every frame sees every frame (AnimateDiff).
    - `causal`: a frame sees the last L frames, itself included (Live2Diff, Fig. 1c).
    - `warmup_causal`: the first Lw frames see each other; a later one sees those and the last L - Lw frames,
      itself included (Live2Diff, Fig. 1d). With F <= L nothing has been evicted yet.
    """
    query = torch.arange(frames)[:, None]
    key = torch.arange(frames)[None, :]
    if mask == "bidirectional":
        return torch.ones(frames, frames, dtype=torch.bool)
    if mask == "causal":
        return (key <= query) & (key > query - window)
    if mask == "warmup_causal":
        recent = (key <= query) & (key > query - (window - warmup))
        return torch.where(query < warmup, key < warmup, (key < warmup) | recent)
    raise ValueError(f"mask={mask!r}: expected one of {', '.join(MASKS)}")


def positions(visible: torch.Tensor) -> torch.Tensor:
    """Positional-encoding index of every (query, key) pair: long (F, F); meaningless where not visible.

    A key's index is its rank among the keys its query may see, so the indices shift once frames have been
    evicted (Live2Diff, listing 4). Before that it is simply the frame number.
    """
    return (visible.long().cumsum(dim=1) - 1).clamp_min(0)
