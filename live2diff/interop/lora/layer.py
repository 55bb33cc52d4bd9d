"""What a LoRA is, whatever file it came in: low-rank additions to the weights of named modules.

    W' = W + scale * (alpha / rank) * up @ down

Legend: r rank, in and out the channels of the adapted layer, k its kernel size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Layer:
    """The addition to one linear or convolutional layer.

    down: (r, in) or (r, in, k, k).  up: (out, r) or (out, r, 1, 1).
    alpha: the strength is alpha / r; files that name none mean alpha = r.
    key: what the file calls it, for messages.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    key: str = ""

    @property
    def rank(self) -> int:
        return self.down.shape[0]


# By the adapted module's path in a `VideoModel`: "unet.down_blocks.0...", "text.encoder.layers.0...".
Layers = dict[str, Layer]


def shown(key: str) -> str:
    """A key as one short printable line: it may come from a hostile file."""
    return key if key.isprintable() and len(key) <= 150 else ascii(key)[:150]
