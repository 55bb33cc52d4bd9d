"""Small real shards for the tests: toy videos, H.264, captions, in the layout `data_prep` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import webdataset as wds

from live2diff import toy

# The `data` group, as plain values.
DATA: dict[str, Any] = {
    "path": "",
    "split": "train",
    "frames": 16,
    "stride": 1,
    "size": 32,
    "hflip": 0.5,
    "caption_dropout": 0.1,
    "columns": "none",
    "reader": "pyav",
    "workers": 0,
    "shuffle": 8,
    "max_corrupt": 0.01,
}


def make_dataset(
    folder: Path, shards: int, clips_per_shard: int, damage: bool = False, val: bool = False
) -> Path:
    """`shards` x `clips_per_shard` clips of 40 frames, 48 pixels; `val`: the last shard is for that."""
    videos = toy.write_videos(folder / "videos", shards * clips_per_shard, seconds=5, fps=8, size=(48, 48))
    contents = []
    for shard in range(shards):
        clips = {}
        for video in videos[shard * clips_per_shard : (shard + 1) * clips_per_shard]:
            data = video.read_bytes()
            clips[f"{int(video.stem[4:]):012x}_0000_000"] = {
                "mp4": data[: len(data) // 3] if damage else data,
                "txt": video.with_suffix(".txt").read_text().encode(),
                "json": json.dumps({"frames": 40, "fps": 8.0}).encode(),
            }
        contents.append(clips)
    held = contents[-1:] if val else []
    return write_shards(folder / "dataset", contents[: len(contents) - len(held)], held)


def write_shards(
    dataset: Path,
    contents: Sequence[Mapping[str, Mapping[str, bytes]]],
    held: Sequence[Mapping[str, Mapping[str, bytes]]] = (),
) -> Path:
    """A dataset of shards with these members, by key and extension; `held` is its split val."""
    splits = {}
    for split, shards in (("train", contents), ("val", held)):
        (dataset / split).mkdir(parents=True)
        splits[split] = {"shards": []}
        for number, clips in enumerate(shards):
            name = f"{split}/clips-{number:06d}.tar"
            with wds.TarWriter(str(dataset / name)) as writer:
                for key, members in clips.items():
                    writer.write({"__key__": key, **members})
            splits[split]["shards"].append({"name": name, "clips": len(clips)})
    (dataset / "dataset.json").write_text(json.dumps({"splits": splits}))
    return dataset
