"""What training reads of a clip: its frames, or columns that the model's own nets made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from live2diff.columns import COLUMNS, differences, identity
from live2diff.errors import DataError, UsageError
from train.shards import read_manifest

if TYPE_CHECKING:
    from live2diff.model.video_model import VideoModel


@dataclass(frozen=True)
class Parts:
    """What a sample is read from.

    Attributes:
        frames: whether the clip's frames are decoded.
        columns: the columns that are read, each with the shape of a row.
    """

    frames: bool = True
    columns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join([*(["frames"] if self.frames else []), *self.columns])


def choose_parts(data: Mapping[str, Any], model: VideoModel | None, depth: bool) -> Parts:
    """The parts that `data.columns` means for a model.

    Args:
        data: the `data` group of the configuration.
        model: the model to be trained, whose frozen nets the columns stand for; None: they are not compared.
        depth: whether it is conditioned on depth.

    Raises:
        UsageError: a column that is not there, not complete, or was made by another net or for another size.
        DataError: the dataset's description is damaged.
    """
    if data["columns"] == "none":
        return Parts()
    folder = Path(data["path"])
    manifest = read_manifest(folder)
    there = manifest.get("columns", {})
    wanted = [name for name in COLUMNS if name in there] if data["columns"] == "auto" else data["columns"]
    columns = {}
    for name in wanted:
        if name == "depth" and not depth:
            continue
        if name not in there:
            raise UsageError(
                f"data.columns: {folder} has no column {name}; add it with `live2diff data build` "
                f"columns=[{name}] column_model=MODEL, or leave it out"
            )
        try:
            made_by = there[name]
            columns[name] = tuple(int(side) for side in made_by["shape"])
            shards, total = made_by["shards"], len(manifest["splits"][data["split"]]["shards"])
            done = shards.get(data["split"], 0)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"{folder / 'dataset.json'}: columns.{name} cannot be read ({error})") from error
        if done != total:
            raise UsageError(
                f"data.columns: {folder} has column {name} for {done} of {total} shards; run the same "
                f"`live2diff data build` to its end, or data.columns=none"
            )
        _check(f"column {name} of {folder}", made_by, data, model, name)
    needs_frames = "latents" not in columns or (depth and "depth" not in columns)
    return Parts(frames=needs_frames, columns=columns)


def _check(
    what: str, made_by: Mapping[str, Any], data: Mapping[str, Any], model: VideoModel | None, name: str
) -> None:
    if name != "text" and data["hflip"] > 0 and not made_by.get("mirror"):
        raise UsageError(
            f"data.columns: {what} has no mirrored arrays; set data.hflip=0, or make it again with "
            "column_mirror=true"
        )
    if model is None:
        return
    found = differences(made_by, identity(model, name, data["size"], bool(made_by.get("mirror"))))
    if found:
        raise UsageError(
            f"data.columns: {what} was made for something else than this run trains ({'; '.join(found)}); "
            "set data.columns=none, or make the column again with this model"
        )
