"""A tiny causal UNet with random weights in every layer, and the stream drill that several tests share."""

from __future__ import annotations

import math

import torch

from live2diff.model.unet import CausalUNet

TINY = dict(
    block_out_channels=(32, 64, 64, 64),
    layers_per_block=1,
    norm_num_groups=8,
    cross_attention_dim=32,
    num_attention_heads=4,
    motion_num_attention_heads=4,
)
LATENT = (8, 8)


def randomise(model: torch.nn.Module, seed: int = 0) -> None:
    """Random values everywhere, zero-initialised layers too, at a scale that keeps activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if parameter.ndim > 1:
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
            else:
                parameter.copy_(0.1 * noise + name.endswith("weight"))


def make_unet(seed: int = 0, **changes) -> CausalUNet:
    unet = CausalUNet(**{**TINY, **changes})
    randomise(unet, seed)
    return unet.eval()


def make_inputs(rows: int, frames: int, seed: int = 1, size: tuple[int, int] = LATENT):
    """Samples and depths (T, C, F, H, W) of every row, timesteps (T,) noisiest first, text (1, S, D)."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(rows, 4, frames, *size, generator=generator)
    depths = torch.randn(rows, 4, frames, *size, generator=generator)
    text = torch.randn(1, 7, TINY["cross_attention_dim"], generator=generator)
    return samples, depths, torch.tensor([801, 599, 399, 199])[:rows], text


def stream(unet, samples, depths, timesteps, text, memory=None) -> torch.Tensor:
    """What every row predicts for every frame when frames arrive one by one: (T, C, F, H, W).

    Row r works on frame n - r at tick n, so rows start and end one after another; a row without a frame gets
    garbage to show that it does not matter.
    """
    rows, _, frames, height, width = samples.shape
    memory = memory or unet.new_memory(rows, height, width)
    out = torch.full_like(samples, float("nan"))
    first = unet.warmup
    for r in range(rows):
        if first:
            out[r, :, :first] = unet.warm_up(
                memory, r, samples[r : r + 1, :, :first], timesteps[r], text, depths[r : r + 1, :, :first]
            )[0]
    for tick in range(frames - first + rows - 1):
        frame = [first + tick - r for r in range(rows)]
        live = [first <= f < frames for f in frame]
        garbage = torch.full_like(samples[0, :, 0], 1e30 if tick % 2 else float("nan"))
        pick = lambda x: torch.stack([x[r, :, f] if live[r] else garbage for r, f in enumerate(frame)])  # noqa: E731, B023
        eps = unet.step(memory, pick(samples), timesteps, text, pick(depths), torch.tensor(live))
        for r, f in enumerate(frame):
            if live[r]:
                out[r, :, f] = eps[r]
    return out


def whole(unet, samples, depths, timesteps, text, mask="warmup_causal") -> torch.Tensor:
    """The same predictions from one masked forward pass over the whole clip."""
    with torch.no_grad():
        return unet(samples, timesteps, text, depths, mask)
