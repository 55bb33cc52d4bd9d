"""Run as a program under Triton's interpreter, which must be chosen before Triton is imported: prints, for
every case, how far the kernel is from the plain PyTorch."""

from __future__ import annotations

import json

import torch

from live2diff.memory import StreamMemory
from live2diff.model.attention import step_attention
from tests.model.tiny import make_inputs, make_unet, stream

CASES = {
    **{f"{rows} rows": dict(rows=rows, pixels=7, heads=2, size=8, ticks=20) for rows in (1, 2, 3, 4)},
    **{
        f"heads of {size}": dict(rows=2, pixels=3, heads=3, size=size, ticks=5)
        for size in (8, 12, 40, 80, 100, 160)
    },
    **{
        f"window {window}, warm-up {warmup}": dict(
            rows=2, pixels=9, heads=2, size=8, window=window, warmup=warmup, ticks=20
        )
        for window, warmup in ((8, 4), (12, 0), (16, 15), (5, 2))
    },
    "8 bits": dict(rows=2, pixels=9, heads=3, size=12, precision="int8"),
    "bfloat16": dict(rows=2, pixels=5, heads=2, size=40, ticks=5, dtype=torch.bfloat16),
}


def both(rows, pixels, heads, size, window=16, warmup=8, ticks=10, precision="exact", dtype=None):
    """Largest differences of result and memory over `ticks`, some rows dead and full of NaN."""
    from live2diff.model.kernels.step import fused_step_attention

    dtype = dtype or torch.float32
    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator).to(dtype)  # noqa: E731
    plain, own = (
        StreamMemory([(pixels, heads, size)], rows, window, warmup, dtype, precision=precision)
        for _ in range(2)
    )
    for row in range(rows if warmup else 0):
        first = draw(warmup, pixels, heads, size), draw(warmup, pixels, heads, size)
        for memory in (plain, own):
            memory.start_row(row)
            memory.write_warm_up(0, row, *first)
    encodings = draw(24, heads, size), draw(24, heads, size), draw(24, heads, size)
    worst = 0.0
    for number in range(ticks):
        # The pipeline fills, and sometimes a row sits out.
        live = torch.tensor([number >= row and (number + row) % 5 != 3 for row in range(rows)])
        q, k, v = (draw(rows, pixels, heads, size) for _ in range(3))
        for x in (q, k, v):
            x[~live] = float("nan")
        results = []
        for memory, attention in ((plain, step_attention), (own, fused_step_attention)):
            tick = memory.tick(live)
            results.append(attention(q, k, v, memory, 0, tick, encodings, size**-0.5)[live].float())
            memory.commit(tick)
        assert not any(result.isnan().any() for result in results)
        if live.any():
            worst = max(worst, float((results[0] - results[1]).abs().amax()))
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, own.state_dict()[name]), name
    return worst


def whole_unet():
    """The same of a tiny UNet's prediction, warm-up and dead rows included."""
    unet = make_unet()
    inputs = make_inputs(2, 10, size=(3, 5))
    expected = stream(unet, *inputs)
    plain = unet.advance
    unet.advance = lambda *args: plain(*args, fused=True)
    return float((stream(unet, *inputs) - expected).abs().amax())


if __name__ == "__main__":
    errors = {name: both(**case) for name, case in CASES.items()}
    print(json.dumps({**errors, "a whole UNet": whole_unet()}))
