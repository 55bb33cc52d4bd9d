"""What a translation is worth, measured against the truth of its scene."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from live2diff import toy
from live2diff.eval.depth_mse import ALIGNED, depth_mse, depth_mse_aligned
from live2diff.eval.depth_mse import KIND as DEPTH
from live2diff.eval.flicker import KIND as FLICKER
from live2diff.eval.flicker import flicker
from live2diff.eval.metric import Kind
from live2diff.eval.warp_error import KIND as WARP
from live2diff.eval.warp_error import warp_error
from live2diff.images import to_tensor
from live2diff.model.video_model import VideoModel
from train.ablate.scenes import LOOK, SIZE, TrueScene

LATENT = Kind(
    "latent_temporal",
    "cosine of adjacent frames' latents of the toy VAE, less a mean cartoon's, times 100",
    "",
    "higher",
)
PSNR = Kind("psnr", "peak signal-to-noise ratio to the true translation", "dB", "higher")
KINDS = {kind.name: kind for kind in (DEPTH, ALIGNED, LATENT, WARP, FLICKER, PSNR)}

_CARTOONS = 64  # whose mean latents are the middle that cosines are taken around


class Measure:
    """Measures outputs with the frozen nets of `model`: its depth net and its VAE.

    Every figure is one number for a video, in the unit of `KINDS`:
        depth_mse, depth_mse_aligned: the net's depth of the output against the scene's exact depth.
        latent_temporal: the place of CLIP's temporal score. The toy world has no encoder of pictures and
            text together; its VAE's latents stand in. The mean latents of cartoons are taken off first, or
            all frames would be alike. It sees places, as CLIP does not: what moves lowers it.
        warp_error: along the exact flow, where it is seen.
        flicker: over the whole picture, motion included: hardly any of it is still.
        psnr: of all frames together.
    """

    def __init__(self, model: VideoModel):
        self._model = model
        seeds = range(toy.SPLITS["train"], toy.SPLITS["train"] + _CARTOONS)
        cartoons = np.stack([toy.render(toy.Scene.sample(seed), 0.0, SIZE, LOOK) for seed in seeds])
        self._middle = self._latents(cartoons).mean(0)

    def __call__(self, scene: TrueScene, output: np.ndarray) -> dict[str, float]:
        """`output`: uint8 RGB (F, H, W, 3), as long as the scene."""
        with torch.no_grad():
            depths = self._model.depth(to_tensor(output).transpose(0, 1)).numpy()
        pairs = list(zip(scene.depth, depths, strict=True))
        error, _ = warp_error(output, scene.flow, mask=scene.seen)
        assert error is not None  # some of the wall is always seen
        return {
            DEPTH.name: float(np.mean([depth_mse(*pair) for pair in pairs])),
            ALIGNED.name: float(np.mean([depth_mse_aligned(*pair) for pair in pairs])),
            LATENT.name: self._latent_temporal(output),
            WARP.name: error,
            FLICKER.name: flicker(output),
            PSNR.name: psnr(output, scene.truth),
        }

    def _latent_temporal(self, output: np.ndarray) -> float:
        latents = (self._latents(output) - self._middle).flatten(1)
        return 100 * float(F.cosine_similarity(latents[:-1], latents[1:]).mean())

    def _latents(self, frames: np.ndarray) -> torch.Tensor:
        """(F, C, h, w)."""
        return self._model.encode(to_tensor(frames)[None])[0].transpose(0, 1)


def psnr(output: np.ndarray, truth: np.ndarray) -> float:
    """dB, of uint8 pictures; infinite where they are equal."""
    error = np.mean((output.astype(float) - truth.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else float("inf")
