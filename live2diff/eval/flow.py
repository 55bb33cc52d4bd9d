"""Optical flow between two pictures, by an estimator that a signature can name.

`dis` is OpenCV's, needs no weights and runs on the processor. `raft_large` is torchvision's network with the
weights of a file; nothing is ever downloaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from live2diff.errors import UsageError
from live2diff.images import to_tensor

FLOWS = ("dis", "raft_large")

_DIS_SMALLEST = 16  # pixels; below, OpenCV gives nothing or noise
_RAFT_UPDATES = 12  # torchvision's own number
_RAFT_GRID, _RAFT_SMALLEST = 8, 128  # pixels: sides must be multiples of the one, and not below the other


class Flow(Protocol):
    """Estimates flow.

    Attributes:
        name: what a signature calls it: method, settings and weight hash.
    """

    name: str

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Flow from `first` to `second`, both uint8 RGB (H, W, 3): float32 (H, W, 2), pixels, x then y.

        Raises:
            UsageError: pictures that are too small for it.
        """
        ...


def make_flow(name: str, weights: str | None = None, device: torch.device | None = None) -> Flow:
    """The estimator called `name`.

    Args:
        weights: for raft_large: the file, as torchvision publishes it (`raft_large_C_T_SKHT_V2-*.pth`).

    Raises:
        UsageError: another name, or no weights named.
        CheckpointError: the file is not there or holds other weights.
    """
    if name == "dis":
        return Dis()
    if name == "raft_large":
        if weights is None:
            raise UsageError(
                "flow=raft_large: needs raft_weights=FILE, torchvision's raft_large_C_T_SKHT_V2-*.pth; "
                "nothing is downloaded. flow=dis needs no weights"
            )
        return Raft(weights, device or torch.device("cpu"))
    raise UsageError(f"flow={name}: expected one of {', '.join(FLOWS)}")


class Dis:
    """Dense Inverse Search (Kroeger et al. 2016), OpenCV's medium preset, on the brightness."""

    def __init__(self) -> None:
        self.name = f"dis medium, opencv {cv2.__version__}"
        self._search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        if min(first.shape[:2]) < _DIS_SMALLEST:
            raise UsageError(f"flow=dis: needs pictures of {_DIS_SMALLEST} pixels or more a side")
        grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (first, second)]
        return self._search.calc(grey[0], grey[1], None)  # pyright: ignore[reportCallIssue, reportArgumentType]


class Raft:
    """RAFT large (Teed and Deng 2020), torchvision's, in float32. Borders are repeated to fit it."""

    def __init__(self, weights: str, device: torch.device):
        from torchvision.models.optical_flow import raft_large

        from live2diff.references import find
        from live2diff.weights import fit_weights, read_weights, weights_hash

        path = Path(find(weights, "raft_weights"))
        model = raft_large(weights=None, progress=False)
        fit_weights(model, read_weights(path), path)
        self._model, self._device = model.eval().to(device), device
        self.name = f"raft_large {weights_hash(model)[:12]}, {_RAFT_UPDATES} updates"

    @torch.no_grad()
    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        height, width = first.shape[:2]
        below, right = (_missing(side) for side in (height, width))
        pair = to_tensor(np.stack([first, second]), self._device).transpose(0, 1)  # (2, 3, H, W)
        padded = F.pad(pair, (0, right, 0, below), mode="replicate")
        flow = self._model(padded[:1], padded[1:], num_flow_updates=_RAFT_UPDATES)[-1]
        return flow[0, :, :height, :width].permute(1, 2, 0).cpu().numpy()


def _missing(side: int) -> int:
    wanted = max(_RAFT_SMALLEST, -(-side // _RAFT_GRID) * _RAFT_GRID)
    return wanted - side
