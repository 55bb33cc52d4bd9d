"""One clip on one picture: its frames, and below them what the columns make of the same frames."""

from __future__ import annotations

import bisect
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data_prep.finished import Finished
from data_prep.look import Looker
from data_prep.members import read_array
from data_prep.progress import printable
from live2diff.columns import member, restore_depth
from live2diff.errors import DataError, UsageError
from live2diff.files import staged_file

_SHOWN = 8  # frames
_HEIGHT = 192  # of a frame on the picture, pixels
_LABEL = 20  # height of the line above a row, pixels
_GAP = 4  # between frames, pixels
_GROUND, _INK = 24, (225, 225, 225)


def run(path: str | os.PathLike, key: str, out: str | os.PathLike | None = None) -> int:
    """Print what is known of the clip `key` and draw it as a PNG; returns 0.

    Args:
        out: the PNG; default KEY.png in the current folder.

    Raises:
        UsageError: no dataset at `path`, no such key (the nearest are named), or no way to write `out`.
        DataError: the clip cannot be read.
    """
    dataset = Finished(path)
    row = _find(dataset, key)
    target = Path(out) if out else Path(Path(f"{key}.png").name)
    if target.suffix.lower() != ".png" or target.is_dir():
        raise UsageError(f"--out {target}: must be named .png")
    picture = draw(dataset, row)
    with staged_file(target) as stage:
        cv2.imwrite(str(stage), picture[:, :, ::-1])
    print("\n".join(map(printable, _summary(dataset, row))))
    print(f"picture: {target}")
    print(f"next: live2diff data report {dataset.folder}  shows the whole dataset on a page")
    return 0


def draw(dataset: Finished, row: dict[str, Any]) -> np.ndarray:
    """Frames of the clip in the index row `row` side by side, then depth and latents: uint8 RGB (H, W, 3)."""
    found = dataset.place(row, "mp4")
    if found is None:
        raise DataError(
            f"{dataset.shard(row)}: {row['key']}: its .mp4 is missing; {_CHECK.format(dataset.folder)}"
        )
    count = min(_SHOWN, row["frames"])
    numbers = [int(number) for number in np.linspace(0, row["frames"] - 1, count).round()]
    with Looker() as looker:
        seen = looker(*found, frames=numbers, kind="png")
    if seen.fault:
        raise DataError(f"{found[0]}: {row['key']}: {seen.fault}; {_CHECK.format(dataset.folder)}")
    frames = [
        cv2.imdecode(np.frombuffer(seen.pictures[number], np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
        for number in numbers
        if number in seen.pictures
    ]
    labels = [f"frame {number}  {number / row['fps']:.2f} s" for number in numbers]
    size = (round(frames[0].shape[1] * _HEIGHT / frames[0].shape[0]), _HEIGHT)
    rows = [_strip(frames, labels, size)]
    for column, name, paint in (("depth", "depth", _paint_depth), ("latents", "latents", _paint_latents)):
        arrays = [dataset.member(row, member(column, of=of), column) for of in ("", "range")]
        if arrays[0] is None:
            continue
        try:
            pictures, words = paint([read_array(data) for data in arrays if data is not None], numbers)
        except (ValueError, IndexError) as error:
            raise DataError(
                f"{dataset.shard(row, column)}: {row['key']}: its {name} cannot be read ({error}); "
                f"{_CHECK.format(dataset.folder)}"
            ) from error
        rows.append(_strip(pictures, [words], size))
    return np.concatenate(rows)


_CHECK = "`live2diff data check {}` says more"


def _paint_depth(arrays: list[np.ndarray], numbers: list[int]) -> tuple[list[np.ndarray], str]:
    raw = restore_depth(arrays[0][numbers], arrays[1][numbers])
    low, high = float(raw.min()), float(raw.max())
    scaled = ((raw - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    pictures = [cv2.applyColorMap(one, cv2.COLORMAP_INFERNO)[:, :, ::-1] for one in scaled]
    return pictures, f"depth: raw inverse depth {low:.4g} (dark, far) to {high:.4g} (bright, near)"


def _paint_latents(arrays: list[np.ndarray], numbers: list[int]) -> tuple[list[np.ndarray], str]:
    means = arrays[0][numbers][:, :3].astype(np.float32)
    low, high = np.percentile(means, (1, 99))
    scaled = ((means - low) / max(high - low, 1e-6) * 255).clip(0, 255).astype(np.uint8)
    return list(
        scaled.transpose(0, 2, 3, 1)
    ), "latents: first three channels of the mean, as red, green, blue"


def _strip(pictures: list[np.ndarray], labels: list[str], size: tuple[int, int]) -> np.ndarray:
    """Pictures side by side in fields of `size`, labels above: one per field, or one for all.

    A picture keeps its proportions: a column of the middle square lies under the middle of its frame.
    """
    width, height = size
    step = width + _GAP
    canvas = np.full((_LABEL + height + _GAP, step * len(pictures) - _GAP, 3), _GROUND, np.uint8)
    for place, picture in enumerate(pictures):
        scale = min(width / picture.shape[1], height / picture.shape[0])
        inner = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST
        left, top = place * step + (width - inner[0]) // 2, _LABEL + (height - inner[1]) // 2
        canvas[top : top + inner[1], left : left + inner[0]] = cv2.resize(picture, inner, interpolation=how)
    for place, label in enumerate(labels):
        at = (place * step + 3, _LABEL - 6)
        cv2.putText(canvas, label, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)
    return canvas


def _find(dataset: Finished, key: str) -> dict[str, Any]:
    """The index row of the clip `key`."""
    keys = dataset.index.column("key").to_pylist()
    if key in keys:
        (row,) = dataset.index.slice(keys.index(key), 1).to_pylist()
        if row["kind"] != "clip":
            raise UsageError(f"{key}: was dropped, so its frames were not kept ({row['reason']})")
        return row
    clips = dataset.clips
    pairs = zip(clips.column("key").to_pylist(), clips.column("uri").to_pylist(), strict=True)
    near = [name for name, uri in pairs if key and key in uri][:3]
    if not near:  # the neighbours in sorted order share the longest beginning
        ordered = sorted(filter(None, clips.column("key").to_pylist()))
        at = bisect.bisect_left(ordered, key)
        near = ordered[max(0, at - 1) : at + 2]
    raise UsageError(f"{key}: no clip of {dataset.folder} has this key; near it: {', '.join(near) or 'none'}")


def _summary(dataset: Finished, row: dict[str, Any]) -> list[str]:
    columns = [name for name in dataset.columns if dataset.shard(row, name).is_file()]
    scores = [
        f"{name.removeprefix('score_')} {value:.4g}"
        for name, value in row.items()
        if name.startswith("score_") and isinstance(value, int | float)
    ]
    source = f"{row['source_width']}x{row['source_height']} {row['codec']} at {row['source_fps']:.5g} fps"
    lines = {
        "key": row["key"],
        "shard": row["shard"],
        "source": f"{row['uri']}  ({source}{', HDR' if row.get('hdr') else ''})",
        "span": f"{row['start_s']:.2f} to {row['end_s']:.2f} s, source frames {row['first_frame']} to "
        f"{row['stop_frame'] - 1}, shot {row['shot']}, clip {row['clip']}",
        "frames": f"{row['frames']} at {row['fps']:.5g} fps, {row['width']}x{row['height']}"
        + (f", {row['repeated']} shown twice" if row["repeated"] else ""),
        "caption": f"{json.dumps(row['caption'], ensure_ascii=False)}  ({row['caption_source']})",
        "scores": ", ".join(scores),
        "columns": ", ".join(columns) or "none",
    }
    if row.get("duplicate_of"):
        lines["looks like"] = f"{row['duplicate_of']}  ({row['duplicate_distance']} of 192 bits differ)"
    if row.get("damage"):
        lines["damage"] = row["damage"]
    return [f"{name:<11}{text}" for name, text in lines.items() if text]
