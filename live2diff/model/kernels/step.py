"""`live2diff.model.attention.step_attention` in one pass over the memory, as a Triton kernel.

A program takes some (pixel, head) pairs of one row. It reads their L keys and values once, as they lie in
memory, puts the new ones in their place, adds the encodings by looking them up, and writes one slot. Sums
are in float32 whatever the memory holds.

Legend: T rows, P pixels, H heads of size D, L window, N encodings.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from live2diff.memory import StreamMemory, Tick
from live2diff.model.constants import Encodings

_TILE = 4096  # keys' numbers that a program holds at once


def fused_step_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    memory: StreamMemory,
    layer: int,
    tick: Tick,
    encodings: Encodings,
    scale: float,
) -> torch.Tensor:
    """See `step_attention`: q, k, v are (T, P, H, D) without encodings, and so is the result."""
    keys, values = memory.keys[layer], memory.values[layer]
    rows, pixels, heads, size = q.shape
    exact = keys.scale is None
    if not exact:  # rounding looks at all heads of a pixel, so it is not the programs' work
        memory.write(layer, tick, k, v)
    block_l, block_d = (triton.next_power_of_2(n) for n in (memory.window, size))
    block = max(1, _TILE // (block_l * block_d))
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    _step_kernel[(triton.cdiv(pixels * heads, block), rows)](
        q.contiguous(),
        k.contiguous(),
        v.contiguous(),
        keys.data,
        values.data,
        keys.data if exact else keys.scale,
        values.data if exact else values.scale,
        *(table.contiguous() for table in encodings),
        tick.live,
        tick.slot,
        tick.visible,
        tick.position,
        tick.own_position,
        out,
        scale,
        pixels,
        HEADS=heads,
        SIZE=size,
        WINDOW=memory.window,
        BLOCK=block,
        BLOCK_L=block_l,
        BLOCK_D=block_d,
        EXACT=exact,
    )
    return out


@triton.jit
def _step_kernel(
    q_ptr,
    k_ptr,
    v_ptr,
    keys_ptr,
    values_ptr,
    key_scale_ptr,
    value_scale_ptr,
    pe_q_ptr,
    pe_k_ptr,
    pe_v_ptr,
    live_ptr,
    slot_ptr,
    visible_ptr,
    position_ptr,
    own_position_ptr,
    out_ptr,
    scale,
    pixels,
    HEADS: tl.constexpr,
    SIZE: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_D: tl.constexpr,
    EXACT: tl.constexpr,
):
    row = tl.program_id(1)
    pair = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # pixel * HEADS + head
    slots = tl.arange(0, BLOCK_L)
    dims = tl.arange(0, BLOCK_D)
    pair_ok, slot_ok, dim_ok = pair < pixels * HEADS, slots < WINDOW, dims < SIZE
    head = pair % HEADS
    live = tl.load(live_ptr + row).to(tl.int1)
    own_slot = tl.load(slot_ptr + row)
    own_position = tl.load(own_position_ptr + row)
    visible = tl.load(visible_ptr + row * WINDOW + slots, mask=slot_ok, other=0).to(tl.int1)
    position = tl.load(position_ptr + row * WINDOW + slots, mask=slot_ok, other=0)

    # A large memory has more numbers than an int32 counts.
    place = row.to(tl.int64) * pixels * HEADS + pair
    vector = place[:, None] * SIZE + dims[None, :]
    vector_ok = pair_ok[:, None] & dim_ok[None, :]
    encoded = (own_position * HEADS + head)[:, None] * SIZE + dims[None, :]
    q = tl.load(q_ptr + vector, mask=vector_ok, other=0.0).to(tl.float32)
    q += tl.load(pe_q_ptr + encoded, mask=vector_ok, other=0.0).to(tl.float32)

    cell = (place[:, None, None] * WINDOW + slots[None, :, None]) * SIZE + dims[None, None, :]
    cell_ok = vector_ok[:, None, :] & slot_ok[None, :, None]
    table = (position[None, :] * HEADS + head[:, None])[:, :, None] * SIZE + dims[None, None, :]
    own = (slots == own_slot)[None, :, None]
    if EXACT:
        new_k = tl.load(k_ptr + vector, mask=vector_ok, other=0.0)
        new_v = tl.load(v_ptr + vector, mask=vector_ok, other=0.0)
        k = tl.load(keys_ptr + cell, mask=cell_ok & ~own, other=0.0).to(tl.float32)
        v = tl.load(values_ptr + cell, mask=cell_ok & ~own, other=0.0).to(tl.float32)
        k = tl.where(own, new_k.to(tl.float32)[:, None, :], k)
        v = tl.where(own, new_v.to(tl.float32)[:, None, :], v)
        written = (place[:, None] * WINDOW + own_slot) * SIZE + dims[None, :]
        tl.store(keys_ptr + written, new_k, mask=vector_ok & live)
        tl.store(values_ptr + written, new_v, mask=vector_ok & live)
    else:
        pixel = row.to(tl.int64) * pixels + pair // HEADS
        unit = pixel[:, None] * WINDOW + slots[None, :]
        unit_ok = pair_ok[:, None] & slot_ok[None, :]
        k = tl.load(keys_ptr + cell, mask=cell_ok, other=0).to(tl.float32)
        v = tl.load(values_ptr + cell, mask=cell_ok, other=0).to(tl.float32)
        k *= tl.load(key_scale_ptr + unit, mask=unit_ok, other=0.0)[:, :, None]
        v *= tl.load(value_scale_ptr + unit, mask=unit_ok, other=0.0)[:, :, None]

    k += tl.load(pe_k_ptr + table, mask=cell_ok, other=0.0).to(tl.float32)
    logits = tl.sum(q[:, None, :] * k, axis=2) * scale
    logits = tl.where(visible[None, :], logits, float("-inf"))
    weight = tl.exp(logits - tl.max(logits, axis=1)[:, None])
    weight = weight / tl.sum(weight, axis=1)[:, None]
    v += tl.load(pe_v_ptr + table, mask=cell_ok, other=0.0).to(tl.float32)
    out = tl.sum(weight[:, :, None] * v, axis=1)
    tl.store(out_ptr + vector, out.to(out_ptr.dtype.element_ty), mask=vector_ok)
