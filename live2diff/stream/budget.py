"""Does a stream fit into memory? Asked before anything is allocated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from live2diff.errors import SetupError
from live2diff.model.video_model import VideoModel

# Features that one UNet step needs at the least, per latent pixel, in widths of its first level: the skips
# and the hidden layer of a feed-forward (8 with its gate).
_ALIVE = 12


def check_memory(model: VideoModel, rows: int, warmup: int, size: tuple[int, int], cache_bytes: int) -> None:
    """Raises SetupError, with the estimate and what to change, if a stream of `rows` cannot fit.

    The estimate is the cache, which is exact, and the least that the UNet's features take: what is refused
    would have failed; what is not may fail still (`advise_when_full`).

    Args:
        warmup: frames that are denoised together at the start.
        size: (width, height) of the frames, pixels.
        cache_bytes: of the stream's memory.
    """
    width, height = size
    frames = max(rows, warmup)
    latents = width * height // model.downscale**2
    width_of_unet = model.unet.config["block_out_channels"][0]
    features = frames * latents * width_of_unet * _ALIVE * model.unet.dtype.itemsize
    needed, free = cache_bytes + features, _free(model.device)
    if needed > free:
        raise SetupError(
            f"a stream of {width}x{height} with {rows} denoising steps needs at least {needed / 1e9:.1f} GB "
            f"beside the model, {cache_bytes / 1e9:.1f} GB of it for what it remembers; {free / 1e9:.1f} GB "
            f"are free; {_ADVICE}"
        )


@contextmanager
def advise_when_full() -> Iterator[None]:
    """Turn the GPU's "out of memory" into one line that says what to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SetupError(f"the GPU's memory is full ({str(error).split('. ')[0]}); {_ADVICE}") from error


_ADVICE = "choose a smaller --size or fewer --steps, or close what else uses it"


def _free(device: torch.device) -> int:
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return psutil.virtual_memory().available
