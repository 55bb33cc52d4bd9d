"""The temporal transformer (motion module) of the causal UNet.

It holds the parameters of diffusers' `AnimateDiffTransformer3D` under the same names, so that AnimateDiff's
weights, LoRA and diffusers' loaders fit. Two things differ: the view decides who attends to whom, and the
group norm is taken per frame. Diffusers' runs over all frames of a clip, which tells each about its future.
"""

from __future__ import annotations

from typing import cast

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn
from torch.utils.checkpoint import checkpoint

from live2diff.model.attention import View


class TemporalBlock(nn.Module):
    """Two self-attentions over time and a feed-forward, each pre-normed and residual.

    Args:
        stock: the diffusers block whose submodules are taken over.
        layer: number of the block's first attention among all temporal attentions of the model.
    """

    def __init__(self, stock: BasicTransformerBlock, layer: int):
        super().__init__()
        assert stock.attn1 is not None and stock.attn2 is not None
        self.norm1, self.attn1 = stock.norm1, stock.attn1
        self.norm2, self.attn2 = stock.norm2, stock.attn2
        self.norm3, self.ff = stock.norm3, stock.ff
        self.pos_embed = stock.pos_embed
        self.layer = layer

    def forward(self, x: torch.Tensor, view: View) -> torch.Tensor:
        """x: (B * P, F, C), P latent pixels."""
        pe = self.pos_embed.pe[0].to(x.dtype)
        x = x + view.attend(self.attn1, self.norm1(x), pe, self.layer)
        x = x + view.attend(self.attn2, self.norm2(x), pe, self.layer + 1)
        return x + self.ff(self.norm3(x))


class TemporalTransformer(nn.Module):
    """Drop-in for `AnimateDiffTransformer3D`, whose submodules it takes over.

    diffusers' blocks hand `num_frames` through untouched; here it carries the `View` of the current forward
    pass. The view thus reaches every layer as an argument, not as state: two threads, a checkpointed
    recomputation or a compiled graph cannot pick up a stale one.
    """

    def __init__(self, stock: AnimateDiffTransformer3D, first_layer: int):
        super().__init__()
        self.norm, self.proj_in, self.proj_out = stock.norm, stock.proj_in, stock.proj_out
        self.transformer_blocks = nn.ModuleList(
            TemporalBlock(cast(BasicTransformerBlock, block), first_layer + 2 * i)
            for i, block in enumerate(stock.transformer_blocks)
        )
        # Set by diffusers' enable_gradient_checkpointing(); its own motion modules are not covered by it.
        self.gradient_checkpointing = False

    @property
    def channels(self) -> int:
        return self.proj_in.out_features

    @property
    def heads(self) -> int:
        return cast(TemporalBlock, self.transformer_blocks[0]).attn1.heads

    @property
    def layers(self) -> int:
        return 2 * len(self.transformer_blocks)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: None = None,
        timestep: None = None,
        class_labels: None = None,
        num_frames: View | None = None,
        cross_attention_kwargs: None = None,
    ) -> torch.Tensor:
        """hidden_states: (B * F, C, H, W) -> the same shape. The unused arguments are the stock signature."""
        view = num_frames
        assert view is not None
        _, _, height, width = hidden_states.shape
        x = self.norm(hidden_states)
        x = x.unflatten(0, (-1, view.frames)).permute(0, 3, 4, 1, 2).flatten(0, 2)  # (B*P, F, C)
        x = self.proj_in(x)
        for block in self.transformer_blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                # Non-reentrant: the reentrant kind gives no gradient when the input itself needs none.
                x = checkpoint(block, x, view, use_reentrant=False)
            else:
                x = block(x, view)
        x = self.proj_out(x)
        x = x.unflatten(0, (-1, height, width)).permute(0, 3, 4, 1, 2).flatten(0, 1)
        return x + hidden_states
