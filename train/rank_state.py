"""What belongs to one process alone: the states of its random generators.

Training draws from generators seeded by sample (`train.noise`), so these only matter to code that uses the
global ones; they are kept so that a resumed process differs in no way from one that never stopped.
"""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from live2diff.files import staged_file


def file_name(rank: int) -> str:
    return f"rank-{rank:04d}.pt"


def save_rank_state(path: Path) -> None:
    """Write this process's generator states to `path`; the name appears when the file is whole."""
    version, words, normal = random.getstate()
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state = {
        "python": [version, list(words), normal],
        "numpy": [kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    data = io.BytesIO()  # a few kB. Writing to a file, torch would not say that the disk is full
    torch.save(state, data)
    with staged_file(path) as stage:
        stage.write_bytes(data.getvalue())


def load_rank_state(path: Path) -> None:
    """Put the generators into the states at `path`, on a machine with as many GPUs."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    version, words, normal = state["python"]
    random.setstate((version, tuple(words), normal))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
