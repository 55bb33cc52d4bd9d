"""Images to latents and back, for both kinds of VAE: `AutoencoderKL` (SD1.5's) and `AutoencoderTiny`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, AutoencoderTiny

from live2diff.errors import CheckpointError, UsageError
from live2diff.interop.kinds import kind_of
from live2diff.interop.single_file import vae_weights
from live2diff.interop.sizes import folder_config, part_folder, sd15_config
from live2diff.interop.taesd import has_halves, is_original, taesd_weights
from live2diff.weights import fit_weights, read_folder, read_weights, without_weights

VAE = AutoencoderKL | AutoencoderTiny
KINDS: dict[str, type[VAE]] = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
_SDXL_SCALING = 0.13025


def posterior(vae: VAE, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the latents of images lie, not yet scaled: mean and standard deviation, each (N, C, h, w).

    `images`: (N, 3, H, W) in [-1, 1]. `AutoencoderTiny` gives one point: its deviation is 0.
    """
    if isinstance(vae, AutoencoderTiny):
        latents = vae.encode(images).latents
        return latents, torch.zeros_like(latents)
    distribution = vae.encode(images).latent_dist
    return distribution.mean, distribution.std


def sample(
    vae: VAE, mean: torch.Tensor, std: torch.Tensor, noise: torch.Tensor | None = None
) -> torch.Tensor:
    """Scaled latents, about unit variance, from a posterior of any one shape.

    Args:
        noise: standard normal: a draw from the posterior, as training takes it. None takes its mean.
    """
    latents = mean if noise is None else mean + std * noise
    return latents * vae.config.scaling_factor


def encode(vae: VAE, images: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
    """Scaled latents (N, C, h, w) of images (N, 3, H, W) in [-1, 1]; `noise` as in `sample`."""
    return sample(vae, *posterior(vae, images), noise)


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


def kind_in(config: Mapping[str, Any], folder: Path | str) -> str:
    """The key of `KINDS` that a configuration of diffusers names. Raises CheckpointError if it is none."""
    kind = str(config.get("_class_name"))
    if kind not in KINDS:
        raise CheckpointError(
            f"{folder}: {ascii(kind)[:50]} is not a VAE this project knows ({', '.join(KINDS)})"
        )
    return kind


def load_vae(path: Path | str, changes: Mapping[str, Any] | None = None) -> VAE:
    """A VAE in float32 on the CPU.

    Args:
        path: a folder in diffusers' layout, of a whole model or of the VAE; a single file: Stable Diffusion's
            VAE alone or in a whole model, or one of TAESD's two files (the other lies beside it), or the
            folder of both.
        changes: for a single file of Stable Diffusion's VAE, what differs from its sizes.

    Raises:
        CheckpointError: not a VAE of a kind that this project knows, or damaged.
    """
    path = Path(path)
    if path.is_dir() and not has_halves(path):
        folder = part_folder(path, "vae")
        config, weights = folder_config(folder), read_folder(folder)
        kind = kind_in(config, folder)
        if config.get("scaling_factor") == _SDXL_SCALING:
            raise CheckpointError(
                f"{folder}: is the VAE of Stable Diffusion XL, whose latents SD1.5 cannot read; give another"
            )
    elif path.is_dir() or is_original(weights := read_weights(path)):
        kind, config, weights = "AutoencoderTiny", {}, taesd_weights(path)
    elif kind_of(weights) == "a TAESD":
        kind, config = "AutoencoderTiny", {}
    else:
        kind, config = "AutoencoderKL", sd15_config("vae", changes)
    if kind == "AutoencoderKL":
        weights = vae_weights(weights, config, path)
    with without_weights():
        vae = cast(VAE, KINDS[kind].from_config(config))
    fit_weights(vae, weights, path)
    return vae.eval()
