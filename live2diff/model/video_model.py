"""A complete model: UNet, VAE, text encoder, depth net and the settings that bind them.

On disk it is a folder that loads in one call (`live2diff.model.folder` says what is in it). diffusers and
transformers read its parts too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import nn

from live2diff.depth import DepthNetwork, depth_image, load_depth
from live2diff.errors import CheckpointError, UsageError
from live2diff.files import staged_folder
from live2diff.interop.sizes import folder_config
from live2diff.model import vae as vae_io
from live2diff.model.folder import read_config, write_config
from live2diff.model.text import TextEncoder
from live2diff.model.unet import CausalUNet
from live2diff.settings import Settings
from live2diff.weights import fit_weights, read_folder, weights_hash

R = TypeVar("R")


@dataclass
class VideoModel:
    """The parts of a model on one device; `settings` say how they were trained to work together.

    provenance: free-form facts about where the weights come from; travels with the folder.
    """

    unet: CausalUNet
    vae: vae_io.VAE
    text: TextEncoder
    depth: DepthNetwork
    settings: Settings
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in (self.vae, self.text, self.depth):
            part.eval().requires_grad_(False)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> VideoModel:
        """Move all parts, in place. The depth net stays in float32: its output is a measurement."""
        for part in (self.unet, self.vae, self.text):
            # The plain kind: diffusers' warns of modules to keep in float32, of which these have none.
            nn.Module.to(part, device=device, dtype=dtype)
        self.depth.to(device)
        self.unet.revision += 1  # whatever was recorded from where the weights lay must be recorded anew
        return self

    def channels_last(self) -> VideoModel:
        """Lay out UNet and VAE as convolutions and streamed attention like it best, in place. Values stay."""
        for part in (self.unet, self.vae):
            nn.Module.to(part, memory_format=torch.channels_last)
        self.unet.revision += 1
        return self

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def downscale(self) -> int:
        """Pixels per latent along a side."""
        return vae_io.downscale(self.vae)

    def hashes(self) -> dict[str, str]:
        """The weights of every part as a SHA-256, by the part's name in a model folder."""
        parts = {"unet": self.unet, "vae": self.vae, "text_encoder": self.text.model, "depth": self.depth}
        return {name: weights_hash(part) for name, part in parts.items()}

    # -- images and latents -------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, images: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Images (B, 3, F, H, W) in [-1, 1] -> latents (B, C, F, h, w).

        `noise`, of the latents' shape, draws from the VAE's posterior; None takes its mean.
        """
        noise = None if noise is None else _fold(noise)
        return _unfold(vae_io.encode(self.vae, _fold(images).to(self.vae.dtype), noise), len(images))

    @torch.no_grad()
    def posterior(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the latents of images (B, 3, F, H, W) in [-1, 1] lie, not yet scaled.

        Returns:
            Mean and standard deviation, each (B, C, F, h, w).
        """
        mean, std = vae_io.posterior(self.vae, _fold(images).to(self.vae.dtype))
        return _unfold(mean, len(images)), _unfold(std, len(images))

    def sample(
        self, mean: torch.Tensor, std: torch.Tensor, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Latents from their `posterior`, drawn with standard normal `noise`; None takes the mean."""
        return vae_io.sample(self.vae, mean, std, noise)

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(B, C, F, h, w) -> images (B, 3, F, H, W) in [-1, 1]."""
        return _unfold(vae_io.decode(self.vae, _fold(latents)), len(latents))

    @torch.no_grad()
    def estimate_depth(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, F, H, W) in [-1, 1] -> raw inverse depth (B, F, H, W), no fixed scale."""
        return self.depth(_fold(images).float()).unflatten(0, (len(images), -1))

    @torch.no_grad()
    def depth_latents(self, normalised: torch.Tensor) -> torch.Tensor:
        """Normalised depth (B, F, H, W) in [-1, 1] -> latents that condition the UNet, (B, C, F, h, w)."""
        return self.encode(depth_image(normalised).transpose(1, 2))

    def clip_depth_latents(self, images: torch.Tensor) -> torch.Tensor:
        """Depth condition of whole clips (B, 3, F, H, W), normalised under the model's policy."""
        return self.depth_condition(self.estimate_depth(images))

    def depth_condition(self, raw: torch.Tensor) -> torch.Tensor:
        """The same from raw inverse depth (B, F, H, W).

        As the stream does it: the warm-up frames together, the others one by one.
        """
        warmup = max(self.settings.streamed_warmup, 1)
        return self.depth_latents(self.settings.depth.normalise_clip(raw, warmup))

    # -- on disk ------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write the model folder, staged: it is whole or absent."""
        with staged_folder(folder) as stage:
            self.write(stage)

    def write(self, folder: Path) -> None:
        """Write the model's files into the empty `folder`, `config.json` with their hashes last.

        Raises:
            UsageError: LoRA adapters stand beside the weights, where no reader would look for them.
        """
        if any(".lora_A." in name for part in (self.unet, self.text) for name in part.state_dict()):
            raise UsageError("the model has LoRA adapters; bake or remove them before it is saved")
        for part in (self.unet, self.vae):  # files hold tensors in the plain layout
            nn.Module.to(part, memory_format=torch.contiguous_format)
        self.unet.revision += 1
        self.unet.save_pretrained(folder / "unet")
        self.vae.save_pretrained(folder / "vae")
        self.text.save(folder)
        self.depth.save(folder / "depth")
        write_config(folder, self.settings, self.provenance, self.unet.dtype)

    @classmethod
    def load(cls, folder: str | Path, dtype: torch.dtype | None = torch.float32) -> VideoModel:
        """Read a model folder on the CPU.

        Args:
            dtype: of UNet, VAE and text encoder; None keeps what they were exported in.

        Raises:
            CheckpointError: not such a folder, a newer format, settings that do not hold, damaged weights.
        """
        folder = Path(folder)
        config = read_config(folder)
        settings, dtype = config.settings, dtype or config.dtype
        model = cls(
            unet=_part(folder, "unet", lambda: _load_unet(folder / "unet", dtype)),
            vae=_part(folder, "vae", lambda: vae_io.load_vae(folder)),
            text=_part(folder, "text_encoder", lambda: TextEncoder.load(folder, settings.text)),
            depth=load_depth(folder / "depth"),
            settings=settings,
            provenance=config.provenance,
        )
        for name, ours, theirs in (
            ("window", settings.window, model.unet.window),
            ("warmup", settings.warmup, model.unet.warmup),
            ("vae_scaling", settings.vae_scaling, model.vae.config.scaling_factor),
        ):
            if ours != theirs:
                raise CheckpointError(
                    f"{folder / 'config.json'}: {name}={ours}, but the weights were saved with {theirs}"
                )
        if settings.uses_depth and model.unet.depth_branch is None:
            raise CheckpointError(f"{folder / 'config.json'}: uses_depth=True, but unet/ has no depth branch")
        return model.to("cpu", dtype)


def _load_unet(folder: Path, dtype: torch.dtype) -> CausalUNet:
    """As diffusers' `from_pretrained`, in any precision and bit for bit what was saved."""
    with torch.device("meta"):  # buffers too: what the config claims costs nothing until the weights agree
        unet = cast(CausalUNet, CausalUNet.from_config(folder_config(folder)))
    fit_weights(unet, read_folder(folder), folder, dtype)
    return unet.eval()


def _part(folder: Path, name: str, load: Callable[[], R]) -> R:
    """Load one part; whatever the libraries raise on a damaged one becomes one line."""
    if not (folder / name).is_dir():
        raise CheckpointError(f"{folder}: the part {name}/ is missing; export the model again")
    try:
        return load()
    except CheckpointError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{folder / name}: cannot be loaded ({reason}); export the model again"
        ) from error


def _fold(clips: torch.Tensor) -> torch.Tensor:
    """(B, C, F, H, W) -> (B * F, C, H, W)."""
    return clips.transpose(1, 2).flatten(0, 1)


def _unfold(frames: torch.Tensor, batch: int) -> torch.Tensor:
    """(B * F, C, H, W) -> (B, C, F, H, W)."""
    return frames.unflatten(0, (batch, -1)).transpose(1, 2)
