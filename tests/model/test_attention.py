"""Attention over a clip costs no more than it has to."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from live2diff.model import masks
from live2diff.model.attention import ClipView
from tests.model.tiny import make_inputs, make_unet

FRAMES = 16


@pytest.mark.parametrize("mask", masks.MASKS)
def test_half_precision_is_at_least_as_near_to_float64_as_the_fused_kernel(mask):
    """Output and gradients. Torch's fused kernel is not run in half precision there: backwards it is slow."""
    block = make_unet().temporal[0][0].transformer_blocks[0]
    attn, pe = block.attn1, block.pos_embed.pe[0]
    seen = masks.visible(mask, FRAMES, window=16, warmup=8)
    view = ClipView(seen, masks.positions(seen))
    torch.manual_seed(0)
    x, target = torch.randn(2, 64, FRAMES, pe.shape[1])

    def plainly(*_) -> torch.Tensor:
        q, k, v = (
            project(x + pe[:FRAMES]).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for project in (attn.to_q, attn.to_k, attn.to_v)
        )
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=attn.scale)
        return attn.to_out[0](out.transpose(1, 2).flatten(2))

    def results(attend) -> list[torch.Tensor]:
        out = attend(attn, x, pe, 0)
        weights = [attn.to_q.weight, attn.to_k.weight, attn.to_v.weight, attn.to_out[0].weight]
        return [out.detach(), *torch.autograd.grad((out * target).sum(), weights)]

    kinds = []
    with torch.autocast("cpu", torch.bfloat16):
        kernel = F.scaled_dot_product_attention
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                F,
                "scaled_dot_product_attention",
                lambda q, *a, **k: kinds.append(q.dtype) or kernel(q, *a, **k),
            )
            ours = results(view.attend)
        theirs = results(plainly)
    assert kinds == [torch.float32] and ours[0].dtype == theirs[0].dtype == torch.bfloat16
    attn.double()
    x, target, pe = x.double(), target.double(), pe.double()
    exact, plain = results(view.attend), results(plainly)
    assert all(torch.allclose(one, other, rtol=1e-12) for one, other in zip(exact, plain, strict=True))
    for one, other, truth in zip(ours, theirs, exact, strict=True):
        own, kernels = ((value - truth).norm() / truth.norm() for value in (one, other))
        assert own < 0.01 and own < 1.1 * kernels, (own, kernels)


def test_a_text_is_projected_once_for_all_frames_of_its_clip():
    unet, seen = make_unet(), []
    for attention in unet.cross:
        attention.to_k.register_forward_hook(lambda _, args, out: seen.append(len(args[0])))
    samples, depths, timesteps, text = make_inputs(2, 3)
    text = torch.cat([text, -text])
    both = unet(samples, timesteps, text, depths)
    assert seen == [2] * len(unet.cross)
    for i in range(2):
        alone = unet(samples[i : i + 1], timesteps[i], text[i : i + 1], depths[i : i + 1])
        assert torch.allclose(alone, both[i : i + 1], atol=1e-5)
    assert not torch.allclose(alone, unet(samples[1:], timesteps[1], text[:1], depths[1:]), atol=1e-3)
