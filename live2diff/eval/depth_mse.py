"""Depth error: how far the output's estimated depth is from the source's, as a measure of kept structure.

An estimator's inverse depth has no fixed scale or offset, so it says nothing before it is normalised. Two
ways, of which each is a figure of its own:

    depth_mse           each map stretched to [0, 1] by its own smallest and largest value, as the paper's
                        release normalises single frames. One stray pixel moves the whole map.
    depth_mse_aligned   the source's map stretched so, the output's brought to it by the scale (not below 0)
                        and shift of least squares, as MiDaS is evaluated (Ranftl et al. 2020).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from live2diff.errors import UsageError
from live2diff.eval.metric import Kind, Score, mean_of
from live2diff.eval.results import Signature
from live2diff.images import to_tensor

if TYPE_CHECKING:
    from live2diff.depth import DepthNetwork

KIND = Kind("depth_mse", "squared difference of depth, each map stretched to 0 to 1", "", "lower")
ALIGNED = Kind("depth_mse_aligned", "the same, the output's depth fitted to the source's", "", "lower")

_FLAT = 1e-6  # a range that is smaller counts as none, in the net's own units


def stretched(raw: np.ndarray) -> np.ndarray:
    """Inverse depth (H, W) of any scale -> float64 in [0, 1] by its own range; a constant becomes 0."""
    raw = raw.astype(np.float64)
    low, high = raw.min(), raw.max()
    return (raw - low) / max(high - low, _FLAT)


def depth_mse(source: np.ndarray, pred: np.ndarray) -> float:
    """Mean squared difference of two maps of inverse depth (H, W), each `stretched`: 0 to 1."""
    return float(np.mean((stretched(source) - stretched(pred)) ** 2))


def depth_mse_aligned(source: np.ndarray, pred: np.ndarray) -> float:
    """The same with `pred` brought to the stretched `source` by least squares: 0 to the source's variance.

    An upside-down map does not count as a good one: the scale is not below 0.
    """
    wanted, given = stretched(source), pred.astype(np.float64)
    wanted, given = wanted - wanted.mean(), given - given.mean()
    power = np.mean(given**2)
    scale = max(np.mean(given * wanted) / power, 0.0) if power > _FLAT**2 else 0.0
    return float(np.mean((scale * given - wanted) ** 2))


class DepthNet:
    """Estimates the inverse depth of pictures, in float32.

    Args:
        reference: a folder that `live2diff.depth` wrote, such as EXPORT/depth, or an official MiDaS file,
            whose name says its network: dpt_hybrid_384.pt, dpt_large_384.pt, midas_v21_small_256.pt.

    Raises:
        UsageError: none named, or a file of another name.
        CheckpointError: it is not there or holds no such weights.
    """

    def __init__(self, reference: str | None, device: torch.device):
        from live2diff.references import find
        from live2diff.weights import weights_hash

        if reference is None:
            raise UsageError(
                "depth_mse: needs depth_model=FOLDER or a MiDaS file; with --export, EXPORT/depth scores "
                "with the net that conditions"
            )
        self._model = _load(Path(find(reference, "depth_model"))).eval().to(device)
        self._device = device
        self.name = f"{type(self._model).__name__} {weights_hash(self._model)[:12]}"
        self.image_size = self._model.image_size

    @torch.no_grad()
    def __call__(self, frames: list[np.ndarray]) -> np.ndarray:
        """uint8 RGB (H, W, 3) frames of one size -> raw inverse depth (N, H, W)."""
        images = to_tensor(np.stack(frames), self._device).transpose(0, 1)
        return self._model(images).float().cpu().numpy()


class DepthMse:
    """Both figures, by a net that may be another than the one the model is conditioned on."""

    kinds = (KIND, ALIGNED)

    def __init__(self, net: DepthNet):
        self._net = net

    def signatures(self) -> dict[str, Signature]:
        common: Signature = {
            "version": 1,
            "model": self._net.name,
            "seen_at": f"{self._net.image_size}x{self._net.image_size}",
            "of": "inverse depth",
            "range": "0 to 1",
            "reduction": "mean over pixels, frames, videos",
        }
        return {
            KIND.name: {**common, "normalisation": "each map by its own smallest and largest value"},
            ALIGNED.name: {
                **common,
                "normalisation": "source by its own smallest and largest value, output by scale (not below "
                "0) and shift of least squares, per frame",
            },
        }

    def begin(self) -> _Measurement:
        return _Measurement(self._net)


class _Measurement:
    def __init__(self, net: DepthNet):
        self._net = net
        self._plain: list[float | None] = []
        self._aligned: list[float | None] = []

    def add(self, source: np.ndarray, pred: np.ndarray) -> None:
        wanted, given = self._net([source, pred])
        self._plain.append(depth_mse(wanted, given))
        self._aligned.append(depth_mse_aligned(wanted, given))

    def scores(self) -> dict[str, Score]:
        return {
            KIND.name: mean_of(self._plain, "no frames"),
            ALIGNED.name: mean_of(self._aligned, "no frames"),
        }


def _load(path: Path) -> DepthNetwork:
    from live2diff.depth import NETWORKS, load_depth, load_midas

    if path.is_dir():
        return load_depth(path)
    for name in NETWORKS:
        if path.stem.startswith(name):
            return load_midas(path, name)
    raise UsageError(f"depth_model={path}: the file's name says no network; known: {', '.join(NETWORKS)}")
