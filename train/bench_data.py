"""How fast one loader worker reads, against decord on the original videos: the reading half of `bench data`.

Processor time is counted, all threads of a process together: the figures are those of a worker with a core of
its own, and hold while the machine does other things too. Files are read once before, so they come out of
memory: a slow disk is not what is measured.
"""

from __future__ import annotations

import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from live2diff.errors import DataError, SetupError
from train.columns import Parts
from train.data import Clips
from train.readers import KINDS, find_reader
from train.shards import read_manifest

GPUS = (10, 50, 200)  # clips/s that a GPU may want; SD1.5's recipe trains a few dozen on the fastest of today
_REPEATS = 5
_HANGS_AFTER = 60.0  # seconds more than a measurement should take: decord hangs on files that state too much


def measure_reading(dataset: Path, originals: Sequence[Path], seconds: float = 2.0) -> dict[str, Any]:
    """Samples per processor second: frames by each reader, latents, and decord on the originals.

    The baseline seeks into a random original and takes the same number of frames, as far apart, and makes the
    same square of them. All are measured in turn, several times.

    Args:
        dataset: a finished one; latents are measured if it has that column.
        originals: the videos it was made of.
        seconds: processor time of each of the repeats.

    Returns:
        `sample`: its frames, stride and size; `baseline`; `frames` by reader; `latents` alone and all
        `columns` together, or None. Each has `clips_per_s` (the median), `low` and `high`; those but the
        baseline have `ratio` to it and `workers`, how many it takes for how many clips/s.

    Raises:
        UsageError: no finished dataset.
        DataError: decord reads none of the originals, or hangs on one.
    """
    manifest = read_manifest(dataset)
    made_as = manifest["config"]
    sample = {"frames": made_as["clip_frames"], "stride": made_as["stride"], "size": made_as["size"]}
    measured: dict[str, Callable[[float], float]] = {}
    with _decord_on(originals, sample) as baseline, _one_thread():
        measured["baseline"] = baseline
        for kind in KINDS:
            try:
                find_reader(kind)
            except SetupError:
                continue  # it is not installed
            measured[kind] = _samples(dataset, {**sample, "reader": kind}, Parts(), hflip=0.5)
        measured |= _columns(dataset, manifest.get("columns", {}), sample)
        rates: dict[str, list[float]] = {name: [] for name in measured}
        for _ in range(_REPEATS):
            for name, measure in measured.items():
                rates[name].append(measure(seconds))
    base = statistics.median(rates["baseline"])
    results = {name: _result(values, base) for name, values in rates.items()}
    return {
        "sample": sample,
        "baseline": {key: results["baseline"][key] for key in ("clips_per_s", "low", "high")},
        "frames": {name: results[name] for name in KINDS if name in results},
        "latents": results.get("latents"),
        "columns": results.get("columns"),
    }


def reading_lines(result: Mapping[str, Any]) -> list[str]:
    """The table of a `measure_reading` result."""
    sample, base = result["sample"], result["baseline"]
    rows = [("originals, decord", base)]
    rows += [(f"clips, {name}", row) for name, row in result["frames"].items()]
    rows += [("latents alone", result["latents"])] if result["latents"] else []
    rows += [("all columns", result["columns"])] if result["columns"] else []
    wanted = [f"{gpu}/s" for gpu in GPUS]
    lines = [
        f"samples of {sample['frames']} frames, {sample['stride']} apart, {sample['size']} pixels square; "
        "per worker with a core of its own",
        f"{'':20}{'clips/s':>9}{'spread':>18}{'ratio':>8}   workers for a GPU of {', '.join(wanted)}",
    ]
    for name, row in rows:
        spread = f"{row['low']:.1f} to {row['high']:.1f}"
        line = f"{name:20}{row['clips_per_s']:9.1f}{spread:>18}"
        if "ratio" in row:
            workers = ", ".join(str(row["workers"][gpu]) for gpu in GPUS)
            line += f"{row['ratio']:7.1f}x   {workers}"
        lines.append(line)
    return lines


def make_model(folder: Path) -> None:
    """Write a model whose latents are of Stable Diffusion's size, for a machine that has no other.

    Its weights are random and its nets narrow: of a column, only the size matters for reading.
    """
    from live2diff.model.build import build
    from train.settings import load_config

    vae = ["block_out_channels=[8,8,8,8]", "norm_num_groups=8"]
    vae += [
        f"{way.lower()}_block_types=[{','.join([f'{way}{kind}Block2D'] * 4)}]"
        for way, kind in (("Down", "Encoder"), ("Up", "Decoder"))
    ]
    words = [f"model.vae.config.{word}" for word in vae]
    config = load_config(["experiment=tiny", "data.path=none", *words])
    build(config["model"]).save(folder)


def _result(rates: Sequence[float], base: float) -> dict[str, Any]:
    median = statistics.median(rates)
    return {
        "clips_per_s": round(median, 2),
        "low": round(min(rates), 2),
        "high": round(max(rates), 2),
        "ratio": round(median / base, 2),
        "workers": {gpu: math.ceil(gpu / median) for gpu in GPUS},
    }


def _columns(
    dataset: Path, there: Mapping[str, Any], sample: Mapping[str, Any]
) -> dict[str, Callable[[float], float]]:
    """What measures latents alone, and what measures all columns."""
    if "latents" not in there:
        return {}
    shapes = {name: tuple(made_by["shape"]) for name, made_by in there.items()}
    hflip = 0.5 if all(made_by.get("mirror", True) for made_by in there.values()) else 0.0
    wanted = {"latents": {"latents": shapes["latents"]}, "columns": shapes}
    return {
        name: _samples(dataset, sample, Parts(frames=False, columns=columns), hflip)
        for name, columns in wanted.items()
    }


def _samples(
    dataset: Path, sample: Mapping[str, Any], parts: Parts, hflip: float
) -> Callable[[float], float]:
    """What measures a loader worker that reads these parts."""
    config = {
        "path": str(dataset),
        "split": "train",
        "caption_dropout": 0.1,
        "reader": "pyav",
        "workers": 0,
        "shuffle": 16,
        "max_corrupt": 0.0,
        "hflip": hflip,
        **sample,
    }
    reading = iter(Clips(config, seed=0, batch=1, batches=1 << 40, parts=parts))
    next(reading)  # opens the shards
    return lambda seconds: _rate(lambda: next(reading), seconds)


def _rate(read: Callable[[], Any], seconds: float) -> float:
    """Calls of `read` per second of this process's processor time."""
    count, start = 0, time.process_time()
    while (used := time.process_time() - start) < seconds:
        read()
        count += 1
    return count / used


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in a loader worker."""
    import cv2
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


@contextmanager
def _decord_on(originals: Sequence[Path], sample: Mapping[str, Any]) -> Iterator[Callable[[float], float]]:
    """What measures decord, in a child process: it may hang or crash on videos as they come."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    arguments = (there, [str(path) for path in originals], dict(sample))
    child = multiprocessing.get_context("spawn").Process(target=_serve, args=arguments, daemon=True)
    child.start()
    there.close()

    def measure(seconds: float) -> float:
        try:
            here.send(seconds)
            # The processor may be shared; what hangs does so for ever.
            answer = here.recv() if here.poll(10 * seconds + _HANGS_AFTER) else "it hangs"
        except (EOFError, BrokenPipeError):
            answer = "it crashed"
        if isinstance(answer, str):
            raise DataError(f"decord cannot read these {len(originals)} originals ({answer}); give others")
        return answer

    try:
        yield measure
    finally:
        child.kill()
        child.join()
        here.close()


def _serve(pipe: Connection, originals: list[str], sample: dict[str, Any]) -> None:
    """The child: opens what decord can, then answers each number of seconds with a rate."""
    import decord

    span, size = (sample["frames"] - 1) * sample["stride"] + 1, sample["size"]
    videos = []
    for path in originals:
        try:
            video = decord.VideoReader(path, num_threads=1)
            height, width = video[0].shape[:2]
        except Exception:  # noqa: S112 - decord is no measure for a video that it cannot read
            continue
        if len(video) >= span:
            scale = size / min(height, width)
            videos.append((path, round(width * scale), round(height * scale), len(video)))
    rng = np.random.default_rng(0)

    def read() -> None:
        from live2diff.images import square

        path, width, height, length = videos[rng.integers(len(videos))]
        start = int(rng.integers(length - span + 1))
        video = decord.VideoReader(path, width=width, height=height, num_threads=1)
        square(video.get_batch(list(range(start, start + span, sample["stride"]))).asnumpy(), size)

    with _one_thread():
        while True:
            try:
                seconds = pipe.recv()
            except EOFError:
                return
            if not videos:
                pipe.send(f"none of them has {span} frames for it")
                continue
            read()
            pipe.send(_rate(read, seconds))
