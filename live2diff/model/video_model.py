"""A complete model: UNet, VAE, text encoder, depth net and the settings that bind them.

On disk it is a folder that loads in one call:

    config.json        format version, settings, provenance
    unet/ vae/ text_encoder/ tokenizer/    as diffusers and transformers save them
    depth/             the depth net
    README.md          model card (written by `live2diff export`)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from live2diff.depth import DPT, depth_image
from live2diff.errors import CheckpointError, UsageError
from live2diff.files import staged_folder, write_json
from live2diff.model import vae as vae_io
from live2diff.model.text import TextEncoder
from live2diff.model.unet import CausalUNet
from live2diff.settings import Settings
from live2diff.weights import load_pretrained, read_json

FORMAT = "live2diff"
FORMAT_VERSION = 1
R = TypeVar("R")


@dataclass
class VideoModel:
    """The parts of a model on one device; `settings` say how they were trained to work together.

    provenance: free-form facts about where the weights come from; travels with the folder.
    """

    unet: CausalUNet
    vae: vae_io.VAE
    text: TextEncoder
    depth: DPT
    settings: Settings
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in (self.vae, self.text, self.depth):
            part.eval().requires_grad_(False)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> VideoModel:
        """Move all parts, in place. The depth net stays in float32: its output is a measurement."""
        for part in (self.unet, self.vae, self.text):
            part.to(device=device, dtype=dtype)
        self.depth.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def downscale(self) -> int:
        """Pixels per latent along a side."""
        return vae_io.downscale(self.vae)

    # -- images and latents -------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, images: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Images (B, 3, F, H, W) in [-1, 1] -> latents (B, C, F, h, w).

        `noise`, of the latents' shape, draws from the VAE's posterior; None takes its mean.
        """
        noise = None if noise is None else _fold(noise)
        return _unfold(vae_io.encode(self.vae, _fold(images).to(self.vae.dtype), noise), len(images))

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
        """Depth condition of whole clips (B, 3, F, H, W), normalised under the model's policy.

        As the stream does it: the warm-up frames together, the others one by one.
        """
        warmup = max(self.settings.streamed_warmup, 1)
        return self.depth_latents(self.settings.depth.normalise_clip(self.estimate_depth(images), warmup))

    # -- on disk ------------------------------------------------------------------------------------------

    def save(self, folder: str | Path, card: str | None = None) -> None:
        """Write the model folder, staged: it is whole or absent."""
        with staged_folder(folder) as stage:
            self.unet.save_pretrained(stage / "unet")
            self.vae.save_pretrained(stage / "vae")
            self.text.save(stage)
            self.depth.save(stage / "depth")
            if card is not None:
                (stage / "README.md").write_text(card, encoding="utf-8")
            write_json(
                stage / "config.json",
                {
                    "format": FORMAT,
                    "format_version": FORMAT_VERSION,
                    "settings": self.settings.to_dict(),
                    "provenance": self.provenance,
                },
            )

    @classmethod
    def load(cls, folder: str | Path) -> VideoModel:
        """Read a model folder on the CPU in float32.

        Raises:
            CheckpointError: not such a folder, a newer format, settings that do not hold, damaged weights.
        """
        folder = Path(folder)
        settings, provenance = read_config(folder)
        model = cls(
            unet=_part(folder, "unet", lambda: load_pretrained(CausalUNet, folder / "unet").eval()),
            vae=_part(folder, "vae", lambda: vae_io.load_vae(folder)),
            text=_part(folder, "text_encoder", lambda: TextEncoder.load(folder, settings.text)),
            depth=DPT.load(folder / "depth"),
            settings=settings,
            provenance=provenance,
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
        return model


def is_model_folder(folder: str | Path) -> bool:
    return (Path(folder) / "config.json").is_file() and (Path(folder) / "unet").is_dir()


def read_config(folder: Path) -> tuple[Settings, dict[str, Any]]:
    """Settings and provenance of a model folder, without its weights. Raises CheckpointError."""
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: not an exported model (no config.json); make one with `live2diff export`"
        )
    data = read_json(path)
    if data.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: not the config of an exported model (key format={data.get('format')!r})"
        )
    version = data.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version={version!r}, this version reads 1 to {FORMAT_VERSION}; update live2diff"
        )
    try:
        provenance = data.get("provenance", {})
        return Settings.from_dict(data["settings"]), provenance if isinstance(provenance, dict) else {}
    except KeyError as error:
        raise CheckpointError(f"{path}: has no key {error}; export the model again") from error
    except UsageError as error:
        raise CheckpointError(f"{path}: {error}") from error


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
