"""Toy clips on disk: a real H.264 file, its caption and its exact inverse depth.

toy_000012.mp4         scene 12
toy_000012.txt         its caption, one line
toy_000012.depth.npy   uint16 (F, H, W): inverse depth x 65535, rounded (error below 8e-6)
"""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import numpy as np

from live2diff.errors import DataError, UsageError
from live2diff.files import staged_file
from live2diff.toy.captions import caption
from live2diff.toy.looks import find_look
from live2diff.toy.render import inverse_depth, render
from live2diff.toy.scene import SPLITS, Scene
from live2diff.toy.view import check_size
from live2diff.video import VideoWriter

DEPTH_SCALE = 65535.0  # inverse depth is always inside (0, 1), so one scale serves every file


def write_videos(
    folder: str | os.PathLike,
    count: int,
    *,
    seed: int = SPLITS["train"],
    seconds: float = 3.0,
    fps: Fraction | float = 16,
    size: tuple[int, int] = (96, 96),
    look: str = "cartoon",
    depth: bool = True,
    crf: int = 10,
) -> list[Path]:
    """Write the scenes `seed` ... `seed + count - 1` into `folder`; return the paths of the videos.

    A file is named after its scene: the same arguments give the same names and, with the same libraries, the
    same bytes. Give each split its own base seed from `SPLITS`; a range that runs into the next is refused.

    Args:
        seconds: length of each clip; `round(seconds * fps)` frames.
        size: (width, height) in pixels, both even (4:2:0 chroma).
        look: a key of `live2diff.toy.LOOKS`.
        depth: also write the inverse depth.
        crf: x264 quality, lower is better.

    Raises:
        UsageError: an unknown look, a bad size, no frames, or scenes that run into another split.
    """
    length = round(seconds * fps)
    if length < 1:
        raise UsageError(f"toy clips of {seconds} s at {fps} fps hold no frame; raise seconds")
    if size[0] % 2 or size[1] % 2:
        raise UsageError(f"toy size {size[0]}x{size[1]}: a video needs even sides")
    check_size(size)
    find_look(look)
    _check_split(seed, count)
    times = [float(i / Fraction(fps)) for i in range(length)]
    return [
        _write_clip(Path(folder), Scene.sample(seed + i), times, fps, size, look, depth, crf)
        for i in range(count)
    ]


def read_depth(path: str | os.PathLike) -> np.ndarray:
    """Inverse depth of a clip, float32 (F, H, W), nearer is larger. `path`: the video or its `.depth.npy`.

    Raises:
        DataError: the file is missing or is not what `write_videos` writes.
    """
    path = Path(path)
    path = path if path.suffix == ".npy" else path.with_suffix(".depth.npy")
    try:
        # Mapped, so that a header which lies about the size is an error and not an allocation.
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError) as error:
        raise DataError(f"{path}: no depth to read here; write the clip with depth=True") from error
    if not isinstance(stored, np.ndarray) or stored.dtype != np.uint16 or stored.ndim != 3:
        raise DataError(f"{path}: not a uint16 (F, H, W) array; write the clip again")
    return stored.astype(np.float32) / np.float32(DEPTH_SCALE)


def _check_split(seed: int, count: int) -> None:
    for name, first in SPLITS.items():
        if seed < first < seed + count:
            raise UsageError(
                f"toy scenes {seed}..{seed + count - 1} run into split {name!r} ({first}...); use fewer"
            )


def _write_clip(
    folder: Path,
    scene: Scene,
    times: list[float],
    fps: Fraction | float,
    size: tuple[int, int],
    look: str,
    depth: bool,
    crf: int,
) -> Path:
    # The video comes last: where it stands, its companions do.
    path = folder / f"toy_{scene.seed:06d}.mp4"
    with staged_file(path.with_suffix(".txt")) as stage:
        stage.write_text(caption(scene, look) + "\n", encoding="ascii")
    if depth:
        values = np.stack([inverse_depth(scene, t, size) for t in times])
        with staged_file(path.with_suffix(".depth.npy")) as stage:
            np.save(stage, np.rint(values * DEPTH_SCALE).astype(np.uint16), allow_pickle=False)
    with VideoWriter(path, fps, size, crf=crf) as writer:
        for t in times:
            writer.write(render(scene, t, size, look))
    return path
