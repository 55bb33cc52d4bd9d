"""The frozen nets that make columns, run over whole clips a few frames at a time."""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import IO, Any, cast

import av
import numpy as np
import torch

from data_prep.config import PrepConfig
from live2diff import __version__
from live2diff.columns import identity, member, quantise_depth
from live2diff.depth import DepthNetwork
from live2diff.devices import find_device
from live2diff.images import square
from live2diff.model import vae as vae_io
from live2diff.model.build import load_model
from live2diff.model.text import TextEncoder

# Fixed, since a net's last bits may depend on how much it sees at once. SD1.5's autoencoder takes about 4 GiB
# for eight pictures of 512 x 512.
_FRAMES = 8
_CAPTIONS = 16
_IN_MEMORY = 1 << 25  # bytes of an array; a longer one goes through a file

_TOOLS = {
    "latents": ("torch", "diffusers", "av", "opencv-python-headless"),
    "depth": ("torch", "timm", "av", "opencv-python-headless"),
    "text": ("torch", "transformers"),
}


@dataclass(frozen=True)
class Nets:
    """A model's frozen nets on one device.

    Attributes:
        size: side of the square they see, pixels.
        mirror: whether its mirror image is run too.
        identities: what decides the values of each configured column (`live2diff.columns.identity`).
        source: where the model came from.
    """

    vae: vae_io.VAE
    depth: DepthNetwork
    text: TextEncoder
    device: torch.device
    size: int
    mirror: bool
    identities: Mapping[str, dict[str, Any]]
    source: str

    @classmethod
    def load(cls, config: PrepConfig) -> Nets:
        """The nets of `config.column_model`.

        Raises:
            CheckpointError: no model there.
            SetupError: no such device as `config.column_device`.
            UsageError: a size that the autoencoder cannot take.
        """
        assert config.column_model is not None  # checked with the configuration
        device = find_device(config.column_device, "column_device")
        size, mirror = config.column_size or config.size, config.column_mirror
        model = load_model(config.column_model)
        identities = {column: identity(model, column, size, mirror) for column in config.columns}
        for part in (model.vae, model.depth, model.text):
            torch.nn.Module.to(part, device)
        return cls(
            model.vae, model.depth, model.text, device, size, mirror, identities, str(config.column_model)
        )

    def made_by(self, column: str) -> dict[str, Any]:
        """The identity of a column, and where its numbers came from."""
        tools = {"live2diff": __version__, **{name: version(name) for name in _TOOLS[column]}}
        return {**self.identities[column], "model": self.source, "tools": tools}

    def text_arrays(self, captions: Sequence[str]) -> Iterator[IO[bytes]]:
        """The `.npy` file of each caption's states, in order. Raises ValueError as `picture_arrays`."""
        for start in range(0, len(captions), _CAPTIONS):
            for states in _half(self.text(list(captions[start : start + _CAPTIONS]))):
                array = _Array(len(states), states[0])
                array.append(states)
                yield array.file

    def picture_arrays(
        self, data: bytes, frames: int, columns: Sequence[str]
    ) -> Iterator[tuple[str, str, IO[bytes]]]:
        """Column, extension and `.npy` file of each array that comes from a clip's pictures.

        Args:
            data: the encoded clip.
            frames: how many it has.
            columns: "latents", "depth" or both.

        Raises:
            ValueError: it does not decode to so many frames, or a value does not fit its type.
            av.FFmpegError: it does not decode.
        """
        makers = {"latents": self._latents, "depth": self._depth}
        arrays: dict[tuple[str, str], _Array] = {}
        for chunk in _chunks(data, frames):
            for mirrored in (False, True) if self.mirror else (False,):
                images = square(chunk, self.size, mirrored).transpose(0, 1).to(self.device)
                for column in columns:
                    for of, values in makers[column](images).items():
                        place = (column, member(column, mirrored, of))
                        if place not in arrays:
                            arrays[place] = _Array(frames, values[0])
                        arrays[place].append(values)
        for (column, suffix), array in arrays.items():
            yield column, suffix, array.file

    @torch.no_grad()
    def _latents(self, images: torch.Tensor) -> dict[str, np.ndarray]:
        return {"": _half(torch.cat(vae_io.posterior(self.vae, images), dim=1))}

    @torch.no_grad()
    def _depth(self, images: torch.Tensor) -> dict[str, np.ndarray]:
        raw = self.depth(images).cpu().numpy()
        if not np.isfinite(raw).all():
            raise ValueError("its depth is not finite")
        values, ranges = quantise_depth(raw)
        return {"": values, "range": ranges}


class _Array:
    """A `.npy` file that is filled a few rows at a time.

    Args:
        rows: how many there will be.
        like: a row.
    """

    def __init__(self, rows: int, like: np.ndarray):
        self.file = cast(IO[bytes], tempfile.SpooledTemporaryFile(_IN_MEMORY))
        header = {
            "descr": np.lib.format.dtype_to_descr(like.dtype),
            "fortran_order": False,
            "shape": (rows, *like.shape),
        }
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, rows: np.ndarray) -> None:
        self.file.write(np.ascontiguousarray(rows).tobytes())


def _chunks(data: bytes, frames: int) -> Iterator[list[np.ndarray]]:
    """The frames of a clip, a few at a time, uint8 RGB (H, W, 3)."""
    count = 0
    with av.open(io.BytesIO(data), format="mp4", options={"protocol_whitelist": "none"}) as container:
        decoded = container.decode(video=0)
        while chunk := [frame.to_ndarray(format="rgb24") for frame in itertools.islice(decoded, _FRAMES)]:
            count += len(chunk)
            if count <= frames:
                yield chunk
    if count != frames:
        raise ValueError(f"it decodes to {count} frames, its record says {frames}")


def _half(values: torch.Tensor) -> np.ndarray:
    half = values.half().cpu().numpy()
    if not np.isfinite(half).all():
        raise ValueError("its values do not fit half precision")
    return half
