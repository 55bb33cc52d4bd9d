"""Images to latents and back, for both kinds of VAE: `AutoencoderKL` (SD1.5's) and `AutoencoderTiny`."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from live2diff.errors import CheckpointError, UsageError
from live2diff.weights import load_pretrained

VAE = AutoencoderKL | AutoencoderTiny
KINDS: dict[str, type[VAE]] = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}


def encode(vae: VAE, images: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
    """Scaled latents of images.

    Args:
        images: (N, 3, H, W) in [-1, 1].
        noise: standard normal, of the latents' shape: a draw from the posterior, as training takes it. None
            takes the posterior's mean. `AutoencoderTiny` has no posterior and always gives the same.

    Returns:
        (N, C, h, w), about unit variance.
    """
    if isinstance(vae, AutoencoderTiny):
        latents = vae.encode(images).latents
    else:
        posterior = vae.encode(images).latent_dist
        latents = posterior.mean if noise is None else posterior.mean + posterior.std * noise
    return latents * vae.config.scaling_factor


def decode(vae: VAE, latents: torch.Tensor) -> torch.Tensor:
    """Images (N, 3, H, W) in [-1, 1] of scaled latents (N, C, h, w)."""
    return vae.decode(latents / vae.config.scaling_factor).sample.clamp(-1, 1)


def downscale(vae: VAE) -> int:
    """Pixels per latent along a side."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def new_vae(kind: str, config: dict) -> VAE:
    if kind not in KINDS:
        raise UsageError(f"model.vae.kind={kind}: expected one of {', '.join(KINDS)}")
    return KINDS[kind](**config)


def load_vae(folder: Path | str, kind: str | None = None, subfolder: str | None = "vae") -> VAE:
    """From a diffusers folder or hub id. `kind` None reads it from the folder's own config."""
    if kind is None:
        kind = str(dict(AutoencoderKL.load_config(folder, subfolder=subfolder))["_class_name"])  # pyright: ignore
    if kind not in KINDS:
        raise CheckpointError(f"{folder}: a {kind} is not a VAE this project knows ({', '.join(KINDS)})")
    return load_pretrained(KINDS[kind], folder, subfolder=subfolder).eval()
