"""What all depth networks share: any image size through a square, and a folder on disk."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from live2diff.errors import CheckpointError, UsageError
from live2diff.files import staged_folder, write_json
from live2diff.weights import fit_weights, read_json, read_weights

D = TypeVar("D", bound="DepthNetwork")


class DepthNetwork(nn.Module):
    """Raw inverse depth of images: larger is nearer, of no fixed scale or offset."""

    FORMAT: ClassVar[str]  # what `config.json` calls it

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Side of the square the network sees, pixels."""

    @abstractmethod
    def of_square(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) in [-1, 1], S the `image_size` -> inverse depth (N, 1, S, S), non-negative."""

    @abstractmethod
    def shape(self) -> dict[str, Any]:
        """The network's sizes, for `of_shape`, as JSON can hold them."""

    @classmethod
    @abstractmethod
    def of_shape(cls: type[D], shape: Any) -> D:
        """A network with random weights. Raises UsageError for sizes that cannot be."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Inverse depth of each image on its own, at its own size.

        The network sees a square: images are squashed to it, which keeps the whole picture, and the result is
        stretched back. Both are bilinear, antialiased where they shrink.

        Args:
            images: (N, 3, H, W) in [-1, 1], of the weights' dtype.

        Returns:
            (N, H, W), non-negative.
        """
        depth = self.of_square(_resize(images, (self.image_size, self.image_size)))
        return _resize(depth, images.shape[-2:])[:, 0]

    def save(self, folder: str | os.PathLike) -> None:
        """Write config.json and model.safetensors as `folder`, replacing an old one when the new is whole."""
        with staged_folder(folder) as stage:
            write_json(stage / "config.json", {"format": self.FORMAT, **self.shape()})
            weights = {key: tensor.contiguous() for key, tensor in self.state_dict().items()}
            save_file(weights, stage / "model.safetensors", metadata={"format": "pt"})

    @classmethod
    def load(cls: type[D], folder: str | os.PathLike) -> D:
        """The network that `save` wrote, in float32 on the CPU, in eval mode. Raises `CheckpointError`."""
        path = Path(folder) / "config.json"
        data = read_json(path)
        if data.pop("format", None) != cls.FORMAT:
            raise CheckpointError(
                f"{path}: 'format' is not {cls.FORMAT!r}; written by another version of live2diff?"
            )
        weights = Path(folder) / "model.safetensors"
        try:
            return cls.with_weights(data, read_weights(weights), weights)
        except UsageError as error:
            raise CheckpointError(f"{path}: {error}") from error

    @classmethod
    def with_weights(cls: type[D], shape: Any, weights: dict[str, torch.Tensor], where: Path) -> D:
        """A network of `shape` with copies of `weights`, in eval mode. Raises UsageError, CheckpointError."""
        with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
            model = cls.of_shape(shape)
        fit_weights(model, weights, where)
        return model.eval()


def _resize(x: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    if x.shape[-2:] == size:
        return x
    # In float32: the CPU has no antialiased resize for half precision.
    return F.interpolate(x.float(), size, mode="bilinear", antialias=True).to(x.dtype)
