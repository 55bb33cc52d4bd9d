"""Small real shards for the tests: toy videos, H.264, captions, in the layout `data_prep` writes."""

from __future__ import annotations

import json
from pathlib import Path

import webdataset as wds

from live2diff import toy

# The `data` group, as plain values.
DATA = {
    "path": "",
    "split": "train",
    "frames": 16,
    "stride": 1,
    "size": 32,
    "hflip": 0.5,
    "caption_dropout": 0.1,
    "workers": 0,
    "shuffle": 8,
}


def make_dataset(folder: Path, shards: int, clips_per_shard: int, damage: bool = False) -> Path:
    """`shards` x `clips_per_shard` clips of 40 frames, 48 pixels."""
    videos = toy.write_videos(folder / "videos", shards * clips_per_shard, seconds=5, fps=8, size=(48, 48))
    target = folder / "dataset" / "train"
    target.mkdir(parents=True)
    for shard in range(shards):
        with wds.TarWriter(str(target / f"clips-{shard:06d}.tar")) as writer:
            for video in videos[shard * clips_per_shard : (shard + 1) * clips_per_shard]:
                data = video.read_bytes()
                writer.write(
                    {
                        "__key__": f"{int(video.stem[4:]):012x}_0000_000",
                        "mp4": data[: len(data) // 3] if damage else data,
                        "txt": video.with_suffix(".txt").read_text(),
                        "json": json.dumps({"frames": 40}),
                    }
                )
    return folder / "dataset"
