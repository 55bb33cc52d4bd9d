"""Small results with videos on disk, for the tests of the report."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from live2diff.eval.flow import make_flow
from live2diff.eval.results import Figure, Results, Skipped, VideoResult

HOSTILE_NAME = "<script>document.title='owned'</script>"
HOSTILE_CAPTION = '"><img src=x onerror="document.title=1"> | `a` [b](http://c.d) $x$'
HOSTILE_REASON = "</script><script>alert(1)</script>\n# heading"

FRAMES, SIZE = 20, (64, 48)


def small_results(folder: Path, videos: int = 2, frames: int = FRAMES) -> Results:
    """`videos` pairs of moving gradients, the first under a hostile name; the last is the worst."""
    measured = []
    for number in range(videos):
        source, pred = (folder / kind / f"clip{number}" for kind in ("source", "pred"))
        write_pictures(source, [picture(at, 0) for at in range(frames)])
        write_pictures(pred, [picture(at, 40) for at in range(frames)])
        measured.append(video(number, source, pred, frames))
    return Results(
        source=str(folder / "source"),
        pred=str(folder / "pred"),
        figures=figures(videos),
        videos=measured,
        skipped=[Skipped("camel", HOSTILE_REASON)],
        environment={
            "cpu": "<b>some</b>",
            "versions": {"torch": "2"},
            "settings": {"flow": "dis", "frames": 7},
        },
        created="2026-01-02T03:04:05+00:00",
        version="0.0.0",
    )


def figures(videos: int) -> dict[str, Figure]:
    flow = {"flow": make_flow("dis").name, "resolution": "64x48"}
    return {
        "warp_error": Figure({"version": 1, **flow}, 0.0123, 0.01, 0.02, "", "lower", videos),
        "clip_temporal": Figure({"version": 1, "model": "m"}, 97.5, None, None, "", "higher", videos),
        "latency_decode": Figure({"version": 1}, math.nan, None, None, "s", "lower", 0),
    }


def video(number: int, source: Path, pred: Path, frames: int) -> VideoResult:
    errors: list[float | None] = [None, *(0.001 * (number + 1) * (1 + at % 7) for at in range(1, frames))]
    errors[frames // 2] = math.nan
    return VideoResult(
        name=HOSTILE_NAME if number == 0 else f"clip{number}",
        source=str(source),
        source_hash=f"{number:064x}",
        pred=str(pred),
        frames=frames,
        fps=10.0,
        caption=HOSTILE_CAPTION if number == 0 else None,
        values={"warp_error": 0.004 * (number + 1), "clip_temporal": math.nan if number else 97.5},
        per_frame={"warp_error": errors, "clip_temporal": [97.0] * frames},
    )


def picture(at: int, blue: int) -> np.ndarray:
    """uint8 RGB (48, 64, 3): red says the row, green the frame, so that a slice can be read back."""
    width, height = SIZE
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0] = (np.arange(height) * 5)[:, None]
    frame[..., 1] = at * 12
    frame[..., 2] = blue
    return frame


def write_pictures(folder: Path, frames: list[np.ndarray]) -> None:
    folder.mkdir(parents=True)
    for at, frame in enumerate(frames):
        assert cv2.imwrite(str(folder / f"{at:05}.png"), frame[..., ::-1])
