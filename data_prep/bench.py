"""How fast a build is and where its time goes, measured while it makes a real dataset.

Processor time is counted, not the clock's: the figures say what a core is worth, also while the machine does
other things.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from data_prep.build import build
from data_prep.progress import Report, plural
from data_prep.records import Outcome
from live2diff import toy
from live2diff.columns import COLUMNS
from live2diff.video import write_video

# Stages of a build -> what they are; "rest" and "shards" are not timed by the children themselves.
_STAGES = {
    "probe": "probe: decode every frame",
    "shots": "shots: look for cuts",
    "encode": "encode: decode again, resize, H.264",
    "filters": "filters: score every frame",
}
_OTHERS = {
    "rest": "rest: start of a process, rejected files",
    "shards": "shards: hash, pack, index",
}
_TOYS, _TOY_SECONDS, _TOY_FPS, _TOY_SIZE = 4, 12, 24, (640, 360)
_TOY_GOP = 250  # x264's own default: what most videos people have look like


def measure_build(
    sources: Sequence[str], out: str | os.PathLike, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Build the dataset `out` and tell what it cost.

    Returns:
        files, clips; `input_s`: seconds of video that were decoded; `wall_s`; `core_s`: processor seconds by
        stage; `originals`: paths of the videos that gave clips.

    Raises:
        As `data_prep.build.build`.
    """
    stages = _Stages()
    children, parent, wall = _children_s(), time.process_time(), time.monotonic()
    summary = build(sources, out, overrides, report=stages)
    core: dict[str, float] = {name: stages.seconds[name] for name in _STAGES}
    core["rest"] = max(0.0, _children_s() - children - sum(core.values()))  # of two clocks of unlike grain
    core["shards"] = time.process_time() - parent
    return {
        "files": summary.inputs,
        "clips": summary.clips,
        "input_s": round(stages.input_s, 3),
        "wall_s": round(time.monotonic() - wall, 3),
        "core_s": {name: round(value, 3) for name, value in core.items()},
        "originals": stages.originals,
    }


def add_columns(out: Path, sources: Sequence[str], overrides: Sequence[str], model: Path) -> None:
    """Give a dataset that `measure_build` made all columns, by the nets of `model`."""
    columns = [f"columns=[{','.join(COLUMNS)}]", f"column_model={model}", "column_mirror=false"]
    build(sources, out, [*overrides, *columns], report=_Stages())


def build_lines(result: Mapping[str, Any]) -> list[str]:
    """The table of a `measure_build` result."""
    seconds, core = result["input_s"], result["core_s"]
    total = sum(core.values())
    lines = [
        f"{plural(result['files'], 'file')}, {seconds:.0f} s of video, {plural(result['clips'], 'clip')}; "
        f"{total:.0f} processor seconds, {result['wall_s']:.0f} s by the clock",
        f"{'':46}{'core-s':>9}{'share':>8}{'input s per core-s':>21}",
    ]
    names = {**_STAGES, **_OTHERS}
    for name, value in [*core.items(), ("all", total)]:
        rate = f"{seconds / value:.1f}" if value > 0 else "-"
        lines.append(f"{names.get(name, name):46}{value:9.1f}{value / total:8.0%}{rate:>21}")
    return [*lines, f"an hour of video takes {total / seconds * 60:.0f} minutes of one core"]


def make_sources(folder: Path) -> list[str]:
    """A few videos of the toy world with far key frames, for a machine that has no others."""
    from live2diff.toy.render import render
    from live2diff.toy.scene import Scene

    for seed in range(_TOYS):
        scene = Scene.sample(toy.SPLITS["train"] + seed)
        times = (number / _TOY_FPS for number in range(_TOY_SECONDS * _TOY_FPS))
        frames = (render(scene, at, _TOY_SIZE, "photo") for at in times)
        write_video(folder / f"toy_{seed}.mp4", frames, Fraction(_TOY_FPS), gop=_TOY_GOP)
    return [str(folder)]


def make_clips(folder: Path, count: int, frames: int, size: int) -> None:
    """Toy videos of `frames` frames and a few that a build may trim, `size` pixels square."""
    seconds = (frames + 8) / _TOY_FPS
    toy.write_videos(folder, count, seconds=seconds, fps=_TOY_FPS, size=(size, size), depth=False)


def make_columns(videos: Path, out: Path, frames: int, size: int, model: Path) -> None:
    """The dataset of `make_clips`, with all columns by the nets of `model`."""
    small = [f"size={size}", f"clip_frames={frames}", "stride=1", "val_fraction=0", "min_size=16"]
    overrides = [*small, "min_motion=null", "workers=1"]
    build([str(videos)], out, overrides, report=_Stages())
    add_columns(out, [str(videos)], overrides, model)


class _Stages(Report):
    """Adds up what the children say instead of printing it."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.input_s = 0.0
        self.originals: list[str] = []

    def file(self, outcome: Outcome) -> None:
        self.seconds.update(outcome.result.get("seconds", {}))
        self.input_s += outcome.facts.get("duration_s", 0.0)
        if outcome.clips:
            self.originals.append(outcome.source.path)

    def _say(self, text: str) -> None:
        pass


def _children_s() -> float:
    """Processor seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
