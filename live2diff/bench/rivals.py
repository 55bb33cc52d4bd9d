"""Other ways to compute what a stream computes, on the same weights: what `bench stream` compares with.

    listing   the paper's listings 1-5 as they are written: the whole cache is rolled to evict a frame, keys
              and values are copied with their encodings added, masks repeated for every pixel and head,
              attention done by plain products; text and depth computed for every row. Equal to a stream.
    no_cache  Table 3: the whole window anew for every frame. Equal to a stream until a frame is evicted; then
              it knows less, since in deeper layers a stream's past has seen frames that are gone.
    chunks    diffusers' `UNetMotionModel`, 16 frames at a time, as its video-to-video pipelines run it.
              Another function: every frame of a chunk sees all others, and no chunk sees the last one.

Each is called like `CausalUNet.step` and gives the rows' prediction. Their convolutions are torch's own, see
`live2diff.model.convolution`.
"""

from __future__ import annotations

from collections import deque

import torch
from diffusers.models.attention_processor import Attention

from live2diff.bench.models import stock_unet
from live2diff.model.constants import project_encoding
from live2diff.model.convolution import as_the_library_does
from live2diff.model.unet import CausalUNet

CHUNK = 16  # frames


class Listing:
    """The listings, for rows that are all warmed up and all carry a frame."""

    frames = 1  # as a `View`

    def __init__(self, unet: CausalUNet, rows: int):
        self.unet, self.rows, self.count = unet, rows, 0
        self.keys: dict[int, torch.Tensor] = {}  # by layer, (T, P, L, C)
        self.values: dict[int, torch.Tensor] = {}

    def start(self, height: int, width: int) -> None:
        """A full cache of random values, for measurements that are not about them."""
        layers = self.unet.new_memory(1, height, width).keys
        for layer, slots in enumerate(layers):
            _, pixels, heads, window, size = slots.data.shape
            shape = (self.rows, pixels, window, heads * size)
            for cache in (self.keys, self.values):
                cache[layer] = torch.randn(shape, device=self.unet.device).to(self.unet.dtype)
        self.count = self.unet.window

    @as_the_library_does()
    @torch.no_grad()
    def warm_up(
        self,
        sample: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        depth: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """All rows at once: sample (T, C, Lw, H, W), and depth alike."""
        self.count = 0
        return self.unet._denoise_clips(sample, timesteps, text, depth, _ListingWarmUp(self))

    @as_the_library_does()
    @torch.no_grad()
    def step(
        self,
        sample: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        depth: torch.Tensor | None = None,
    ) -> torch.Tensor:
        depth = None if depth is None else depth.unsqueeze(2)
        eps = self.unet._denoise_clips(sample.unsqueeze(2), timesteps, text, depth, self)
        self.count += 1
        return eps.squeeze(2)

    def attend(self, attn: Attention, x: torch.Tensor, pe: torch.Tensor, layer: int) -> torch.Tensor:
        window, warmup = self.unet.window, self.unet.warmup
        q, k, v = (project(x).unflatten(0, (self.rows, -1)) for project in (attn.to_q, attn.to_k, attn.to_v))
        last = min(warmup + self.count, window - 1)
        for cache, new in ((self.keys, k), (self.values, v)):
            if warmup + self.count >= window:
                ring = torch.roll(cache[layer][:, :, warmup:], -1, dims=2)
                cache[layer] = torch.cat([cache[layer][:, :, :warmup], ring], dim=2)
            cache[layer][:, :, last] = new[:, :, 0]
        pe_q, pe_k, pe_v = (table.flatten(1) for table in project_encoding(attn, pe))
        q = q + pe_q[last]
        k = self.keys[layer] + pe_k[:window]
        v = self.values[layer] + pe_v[:window]
        hidden = torch.arange(window, device=x.device) > last
        mask = torch.zeros(window, dtype=x.dtype, device=x.device).masked_fill(hidden, float("-inf"))
        mask = mask.repeat(len(x) * attn.heads, 1, 1)
        return _by_products(attn, *(t.flatten(0, 1) for t in (q, k, v)), mask)


class _ListingWarmUp:
    """Listing 1: the warm-up frames see each other, and begin the cache."""

    def __init__(self, listing: Listing):
        self.listing, self.frames = listing, listing.unet.warmup

    def attend(self, attn: Attention, x: torch.Tensor, pe: torch.Tensor, layer: int) -> torch.Tensor:
        k, v = attn.to_k(x), attn.to_v(x)
        for cache, new in ((self.listing.keys, k), (self.listing.values, v)):
            pixels = len(x) // self.listing.rows
            cache[layer] = new.new_zeros(self.listing.rows, pixels, self.listing.unet.window, new.shape[-1])
            cache[layer][:, :, : self.frames] = new.unflatten(0, (self.listing.rows, -1))
        x = x + pe[: self.frames]
        return _by_products(attn, *(project(x) for project in (attn.to_q, attn.to_k, attn.to_v)))


class NoCache:
    """The window that a frame sees, computed anew for it: warm-up frames and the last L - Lw."""

    def __init__(self, unet: CausalUNet):
        self.unet = unet
        self.first: list[torch.Tensor] = []
        self.recent: deque[torch.Tensor] = deque(maxlen=unet.window - unet.warmup)

    def warm_up(self, sample: torch.Tensor, depth: torch.Tensor | None = None) -> None:
        """(T, C, Lw, H, W) each."""
        self.first = list(_joined(sample, depth).unbind(2))
        self.recent.clear()

    @as_the_library_does()
    @torch.no_grad()
    def step(
        self,
        sample: torch.Tensor,
        timesteps: torch.Tensor,
        text: torch.Tensor,
        depth: torch.Tensor | None = None,
    ) -> torch.Tensor:
        self.recent.append(_joined(sample, depth))
        clip = torch.stack([*self.first, *self.recent], dim=2)
        channels = sample.shape[1]
        depths = None if depth is None else clip[:, channels:]
        return self.unet(clip[:, :channels], timesteps, text, depths)[:, :, -1]


class Chunks:
    """diffusers' own UNet with our weights, shared; it has no depth branch."""

    def __init__(self, unet: CausalUNet):
        self.unet = stock_unet(unet).eval()

    @torch.no_grad()
    def step(self, sample: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """One denoising step of a chunk, (1, C, 16, H, W)."""
        states = text.repeat_interleave(sample.shape[2], dim=0)
        return self.unet(sample, timestep, states).sample


def _by_products(
    attn: Attention, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | float = 0.0
) -> torch.Tensor:
    """Attention as the listings write it: q (B, N, C); k and v (B, S, C); mask (B * h, N, S), added."""
    q, k, v = (
        t.unflatten(-1, (attn.heads, -1)).transpose(1, 2).flatten(0, 1).contiguous() for t in (q, k, v)
    )  # (B * h, N or S, d)
    weight = (torch.bmm(q, k.transpose(1, 2)) * attn.scale + mask).softmax(-1)
    return attn.to_out[0](torch.bmm(weight, v).unflatten(0, (-1, attn.heads)).transpose(1, 2).flatten(2))


def _joined(sample: torch.Tensor, depth: torch.Tensor | None) -> torch.Tensor:
    return sample if depth is None else torch.cat([sample, depth], dim=1)
