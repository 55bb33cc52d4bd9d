"""The licences of the public models that others build on, as their publishers state them."""

from __future__ import annotations

import re

# Part of a hub id or of a file's name -> the licence, and who publishes under it.
_KNOWN = [
    (r"stable-diffusion-v1-5|v1-5-pruned", "CreativeML Open RAIL-M", "Stable Diffusion 1.5"),
    (r"animatediff|mm_sd_v1[45]|v3_sd15_mm", "Apache-2.0", "AnimateDiff"),
    (r"live2diff\.(ckpt|safetensors)$|leoxing/live2diff", "Apache-2.0", "Live2Diff's authors"),
    (r"dpt_(hybrid|large)|midas_v21", "MIT", "MiDaS"),
    (r"taesd", "MIT", "TAESD"),
    (r"sd-vae-ft", "MIT", "Stability AI"),
    (r"lcm-lora-sdv1-5", "Open RAIL++", "Latent Consistency Models"),
    (r"clip-vit-large-patch14", "MIT", "CLIP"),
]
UNKNOWN = "not known to this project; ask where it came from"


def licence_of(source: str) -> str:
    """The licence of the model at `source`, a hub id or a path, as one phrase for a table."""
    for pattern, licence, publisher in _KNOWN:
        if re.search(pattern, source, flags=re.IGNORECASE):
            return f"{licence} ({publisher})"
    return UNKNOWN
