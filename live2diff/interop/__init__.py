"""Foreign checkpoints in and out."""

from live2diff.interop.official import unet_from_official

__all__ = ["unet_from_official"]
