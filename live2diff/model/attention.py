"""Temporal attention in its three forms: over a clip, over the warm-up frames, one streamed frame at a time.

All three are the same function. Projections are linear, so adding the positional encoding before them
(AnimateDiff) equals adding its projection after them: to_k(x + pe[i]) = to_k(x) + K[i] with K = W_k pe.
A cache can therefore hold to_k(x), and the position, which changes as frames are evicted, is applied when
it is read (Live2Diff, Sec. 3.3). In logits and output the projected encoding enters as a table lookup,

    q . (k_j + K[i_j]) = q . k_j + (q . K)[i_j]
    sum_j p_j (v_j + V[i_j]) = sum_j p_j v_j + sum_j p_j V[i_j]

so neither keys nor values are ever copied with their encodings added.

Legend: B batch, P latent pixels, F frames, L window, T denoising rows, h heads, d head size, C = h * d.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention

from live2diff.memory import StreamMemory, Tick
from live2diff.model.constants import Encodings, project_encoding

# PyTorch's fused attention kernels fail from this batch size on.
_SDPA_BATCH = 65_535


class View(Protocol):
    """What temporal layers know of time in one forward pass: `frames` per batch row, and how to attend."""

    frames: int

    def attend(self, attn: Attention, x: torch.Tensor, pe: torch.Tensor, layer: int) -> torch.Tensor:
        """Self-attention of x, (B * P, F, C), without positional encoding yet; pe is the table (N, C)."""
        ...


class ClipView:
    """A whole clip under a mask: training, validation, and the reference for streaming.

    Args:
        visible: bool (F, F) from `masks.visible`.
        position: long (F, F) from `masks.positions`.
    """

    def __init__(self, visible: torch.Tensor, position: torch.Tensor):
        self.frames = visible.shape[0]
        self.visible, self.position = visible, position
        # Without eviction a frame has one index for all queries, and the plain fused attention applies.
        own = torch.arange(self.frames, device=position.device).expand_as(position)
        self.absolute = bool((position == own)[visible].all())
        self.everything = bool(visible.all())
        # Backwards in half precision, PyTorch's fused kernel for CPUs takes about 10 times as long.
        self.upcast = visible.device.type == "cpu"

    def attend(self, attn: Attention, x: torch.Tensor, pe: torch.Tensor, layer: int) -> torch.Tensor:
        if self.absolute:
            visible = None if self.everything else self.visible
            upcast = self.upcast and torch.is_grad_enabled()
            return _plain_attention(attn, *_project(attn, x + pe[: self.frames]), visible, upcast)
        return self._attend_windowed(attn, x, pe)

    def _attend_windowed(self, attn: Attention, x: torch.Tensor, pe: torch.Tensor) -> torch.Tensor:
        pe_q, pe_k, pe_v = project_encoding(attn, pe)
        q, k, v = (_split(attn, t) for t in _project(attn, x))
        q = q + pe_q[self.position.diagonal()]
        q, k, v, pe_k, pe_v = (t.transpose(-3, -2) for t in (q, k, v, pe_k, pe_v))  # (..., h, F or N, d)
        index = self.position.expand(*q.shape[:2], -1, -1)
        logits = q @ k.mT + (q @ pe_k.mT).gather(-1, index)
        weight = _softmax(logits * attn.scale, self.visible)
        by_position = weight.new_zeros(*weight.shape[:-1], pe_v.shape[-2]).scatter_add(-1, index, weight)
        return _output(attn, weight @ v + by_position @ pe_v)


class WarmUpView:
    """The Lw warm-up frames of one denoising row, bidirectional; their keys and values go into the memory."""

    def __init__(self, memory: StreamMemory, row: int):
        self.frames, self.memory, self.row = memory.warmup, memory, row

    def attend(self, attn: Attention, x: torch.Tensor, pe: torch.Tensor, layer: int) -> torch.Tensor:
        q, k, v = _project(attn, x)
        self.memory.write_warm_up(layer, self.row, *(_split(attn, t).transpose(0, 1) for t in (k, v)))
        encodings = (table.flatten(1) for table in project_encoding(attn, pe[: self.frames]))
        return _plain_attention(attn, *(t + e for t, e in zip((q, k, v), encodings, strict=True)), None)


class StepView:
    """One new frame in each of T denoising rows, against what the memory holds of that row's past.

    Args:
        encodings: of every layer, see `Constants`.
        fused: run the Triton kernel, which does in one pass what `step_attention` does.
    """

    frames = 1

    def __init__(self, memory: StreamMemory, tick: Tick, encodings: list[Encodings], fused: bool = False):
        self.memory, self.tick, self.encodings, self.fused = memory, tick, encodings, fused

    def attend(self, attn: Attention, x: torch.Tensor, pe: torch.Tensor, layer: int) -> torch.Tensor:
        q, k, v = (_split(attn, t).unflatten(0, (self.memory.rows, -1))[:, :, 0] for t in _project(attn, x))
        if self.fused:
            from live2diff.model.kernels.step import fused_step_attention as attention
        else:
            attention = step_attention
        out = attention(q, k, v, self.memory, layer, self.tick, self.encodings[layer], attn.scale)
        return attn.to_out[0](out.reshape(x.shape))


def step_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    memory: StreamMemory,
    layer: int,
    tick: Tick,
    encodings: Encodings,
    scale: float,
) -> torch.Tensor:
    """Remember k and v, then attend to what each row may see. All without encodings, (T, P, h, d); returns
    the same shape. Rows that are not live give anything."""
    pe_q, pe_k, pe_v = encodings
    memory.write(layer, tick, k, v)
    q = q + pe_q[tick.own_position][:, None]
    pe_k, pe_v = pe_k[tick.position], pe_v[tick.position]  # (T, L, h, d)
    logits = (memory.keys[layer].read() @ q[..., None])[..., 0]  # (T, P, h, L)
    logits = logits + torch.einsum("tphd,tlhd->tphl", q, pe_k)
    weight = _softmax(logits * scale, tick.visible[:, None, None])
    out = (weight[..., None, :] @ memory.values[layer].read())[..., 0, :]
    return out + torch.einsum("tphl,tlhd->tphd", weight, pe_v)


def _project(attn: Attention, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return attn.to_q(x), attn.to_k(x), attn.to_v(x)


def _split(attn: Attention, x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (attn.heads, -1))


def _heads(attn: Attention, x: torch.Tensor) -> torch.Tensor:
    """(..., S, C) -> (..., h, S, d)."""
    return _split(attn, x).transpose(-3, -2)


def _softmax(logits: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    return logits.masked_fill(~visible, float("-inf")).float().softmax(-1).to(logits.dtype)


def _output(attn: Attention, x: torch.Tensor) -> torch.Tensor:
    """(B, h, S, d) -> (B, S, C), through the output projection."""
    return attn.to_out[0](x.transpose(1, 2).flatten(2))


def _plain_attention(
    attn: Attention,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    visible: torch.Tensor | None,
    upcast: bool = False,
) -> torch.Tensor:
    q, k, v = (_heads(attn, t) for t in (q, k, v))
    if upcast and q.dtype.itemsize < 4:
        with torch.autocast(q.device.type, enabled=False):
            x = _fused(q.float(), k.float(), v.float(), visible, attn.scale).to(q.dtype)
    else:
        x = _fused(q, k, v, visible, attn.scale)
    return _output(attn, x)


def _fused(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, visible: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """PyTorch's fused attention, (B, h, S, d)."""
    parts = [
        F.scaled_dot_product_attention(*part, attn_mask=visible, scale=scale)
        for part in zip(q.split(_SDPA_BATCH), k.split(_SDPA_BATCH), v.split(_SDPA_BATCH), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)
