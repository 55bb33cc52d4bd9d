"""What every step of a stream would compute anew with the same result: computed once, and kept.

Text and timesteps do not change from frame to frame. So the keys and values of the prompt in every
cross-attention, the rows' time embeddings, and the projected positional encodings are computed when the
prompt or the weights change, and a step only reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention

# Queries', keys' and values' share of the positional encodings, each (N, H, D).
Encodings = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass
class Constants:
    """Made by `CausalUNet.constants`. Tensors stay where they are: `copy_` writes into them.

    text: (B, S, D) states of the prompts; each serves an equal share of the rows, in order.
    keys, values: (B, H, S, d) of every cross-attention.
    time: (T, E) embeddings of the rows' timesteps.
    encodings: of every temporal attention.
    """

    text: torch.Tensor
    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    time: torch.Tensor
    encodings: list[Encodings]

    def copy_(self, other: Constants) -> None:
        """Take over `other`'s values in place, so that whoever holds these tensors has them."""
        for own, new in zip(self._tensors(), other._tensors(), strict=True):
            own.copy_(new)

    def _tensors(self) -> Iterator[torch.Tensor]:
        yield from (self.text, *self.keys, *self.values, self.time)
        for tables in self.encodings:
            yield from tables


class TextAttention:
    """Cross-attention whose keys and values are computed once for each prompt, not for each frame.

    diffusers' blocks hand `encoder_hidden_states` through untouched: text, or the `Constants` of a stream,
    which hold its keys and values already, reach every layer as an argument.

    Args:
        layer: number of the attention among all cross-attentions of the model.
    """

    def __init__(self, layer: int):
        self.layer = layer

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | Constants,
        attention_mask: None = None,
    ) -> torch.Tensor:
        """hidden_states: (N, P, C) -> the same; each of B texts serves an equal share of N, in order."""
        text = encoder_hidden_states
        if isinstance(text, Constants):
            key, value = text.keys[self.layer], text.values[self.layer]
        else:
            key, value = self.project(attn, text)
        # The frames that share a text ask as one long sequence: nothing is repeated for them.
        query = attn.to_q(hidden_states).unflatten(0, (len(key), -1)).flatten(1, 2)
        query = query.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # (B, H, N / B * P, d)
        x = F.scaled_dot_product_attention(query, key, value)
        return attn.to_out[0](x.transpose(1, 2).reshape(hidden_states.shape))

    @staticmethod
    def project(attn: Attention, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of text states (B, S, D), each (B, H, S, d)."""
        key, value = (
            project(text).unflatten(-1, (attn.heads, -1)).transpose(1, 2).contiguous()
            for project in (attn.to_k, attn.to_v)
        )
        return key, value


def project_encoding(attn: Attention, pe: torch.Tensor) -> Encodings:
    """The share of the encodings pe (N, C) in queries, keys and values. Asks the layers themselves, so that
    LoRA wrappers and changed weights are always respected."""
    tables = []
    for layer in (attn.to_q, attn.to_k, attn.to_v):
        table = layer(pe)
        table = table if layer.bias is None else table - layer.bias
        tables.append(table.unflatten(-1, (attn.heads, -1)))
    return tables[0], tables[1], tables[2]
