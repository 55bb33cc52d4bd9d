"""The child process: one source in, clip files and a result out.

The file is hostile: it may crash the decoder, fill the memory or never end. So this process has an
address-space limit, is killed by its parent when it stalls or takes too long, dies with its parent, and
writes only into the job's folder. It imports no torch, to start fast.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import resource
import sys
import traceback
from collections import Counter
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.logging
import av.subtitles.stream  # noqa: F401, PyAV imports it late, when memory is limited already
import cv2

from data_prep import heartbeat
from data_prep.children import EXIT_BUG, EXIT_MACHINE
from data_prep.clips import Clip, plan_clips, resample
from data_prep.clock import Clock
from data_prep.config import PrepConfig
from data_prep.decode import RejectedError, short_side
from data_prep.encode import encode_clips
from data_prep.filters import reason_to_drop
from data_prep.probe import Probe, probe
from data_prep.shots import CutDetector, split_shots
from live2diff.parent import end_with

# Errors of writing that would meet every other file too; anything else is put down to the source.
_MACHINE_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EFBIG,
    errno.EACCES,
    errno.ENOTDIR,
    errno.EIO,
)


def process(path: str, folder: Path, config: PrepConfig) -> dict[str, Any]:
    """Decode, cut, encode and score one source; the clip files go to `folder`.

    Returns:
        `facts`: what the probe found, and the cuts. `clips`: one dict per clip; its `dropped` says why there
        is no file, or is None. `rejected`: a reason, only if all are dropped. `seconds`: processor time by
        stage. JSON values throughout.

    Raises:
        RejectedError: no clip comes out, with the reason.
    """
    clock = Clock()
    detector = CutDetector(config.cut_ratio, config.cut_change)
    with clock.stage("probe"):
        found = probe(path, clock.timed("shots", detector.see))
    cuts = sorted({*detector.cuts, *found.holes})
    facts = {**found.facts(), "cuts": cuts}
    clips, fps = _plan(found, cuts, config, facts)
    size = short_side(found.geometry.upright, config.size)
    rows = []
    with clock.stage("encode"):
        files = encode_clips(
            path,
            clips,
            folder,
            fps=fps,
            size=size,
            turns=found.geometry.turns,
            interlaced=found.interlaced,
            crf=config.crf,
            clock=clock,
        )
        for clip, (file, scores) in zip(clips, files, strict=True):
            dropped = reason_to_drop(scores, config)
            if dropped:
                file.unlink()
            rows.append({**_describe(clip, file, fps, size), "scores": scores, "dropped": dropped})
    result = {"facts": facts, "clips": rows, "seconds": clock.seconds()}
    if all(row["dropped"] for row in rows):
        kinds = Counter(row["dropped"].partition(":")[0] for row in rows)
        counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
        result["rejected"] = f"all clips dropped: {counts}"
    return result


def _plan(
    found: Probe, cuts: list[int], config: PrepConfig, facts: dict[str, Any]
) -> tuple[list[Clip], Fraction]:
    width, height = found.geometry.upright
    if min(width, height) < config.min_size:
        needed = f"the short side must be at least {config.min_size}"
        raise RejectedError(f"too small: {width}x{height} pixels, {needed}", facts)
    fps = Fraction(config.fps).limit_denominator(1001) if config.fps else found.rate
    spoiled = [(loss.spoiled, loss.frame) for loss in found.losses]
    shots = split_shots(len(found.times), cuts, config.trim, spoiled)
    clips = plan_clips(
        shots, found.times, found.rate, fps, min_frames=config.min_frames, max_seconds=config.max_seconds
    )
    if not clips:
        longest = max(len(resample(shot, found.times, found.rate, fps)) for shot in shots)
        what = f"{longest} frame{'' if longest == 1 else 's'}"
        if config.fps:
            what += f" at {config.fps:g} fps"
        if len(shots) > 1:
            what += f" in the longest of {len(shots)} shots"
        needed = f"a clip needs {config.min_frames}"
        if found.damage:
            raise RejectedError(f"damaged: {what}, then {found.damage}; {needed}", facts)
        raise RejectedError(f"too short: {what}, {needed}", facts)
    return clips, fps


def _describe(clip: Clip, file: Path, fps: Fraction, size: tuple[int, int]) -> dict[str, Any]:
    frames = len(clip.frames)
    return {
        "file": file.name,
        "shot": clip.shot,
        "clip": clip.number,
        "span_s": [round(clip.start_s, 6), round(clip.start_s + float(frames / fps), 6)],
        "frame_range": [clip.frames[0], clip.frames[-1] + 1],
        "frames": frames,
        "repeated": frames - len(set(clip.frames)),
        "fps": round(float(fps), 6),
        "size": list(size),
    }


def limit_process(parent: int, memory_mb: int, seconds: float | None) -> None:
    """Make this process safe to leave alone with a hostile file.

    Args:
        parent: the process it may not outlive.
        memory_mb: address space, MiB.
        seconds: of processor time; None: no limit.
    """
    if not end_with(parent):
        os._exit(EXIT_MACHINE)
    limits = {resource.RLIMIT_AS: memory_mb * 2**20, resource.RLIMIT_CORE: 0}
    if seconds is not None:
        limits[resource.RLIMIT_CPU] = int(seconds) + 5  # ends a stray child where no parent's death is told
    for kind, value in limits.items():
        with suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(kind, (value, value))


def main() -> None:
    """Read the job as JSON from standard input; write `result.json` into its folder.

    Standard output carries the heartbeat and nothing else. The exit code tells the parent whose fault it is
    if there is no result: `EXIT_MACHINE`, `EXIT_BUG`, or a signal that the file provoked.
    """
    heartbeat.start(os.dup(1))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    job = json.load(sys.stdin)
    config = PrepConfig(**job["config"])
    limit_process(job["parent"], config.memory_mb, config.timeout_s)
    _quiet_libraries()
    try:
        result = _result(job["path"], Path(job["folder"]), config)
        (Path(job["folder"]) / "result.json").write_text(json.dumps(result), encoding="utf-8")
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
            print(f"cannot write ({error.strerror or error})", file=sys.stderr)
            sys.exit(EXIT_MACHINE)
        place = traceback.extract_tb(error.__traceback__)[-1]
        words = " ".join(str(error).split())
        print(f"{type(error).__name__}: {words} ({place.filename}:{place.lineno})", file=sys.stderr)
        sys.exit(EXIT_BUG)


def _result(path: str, folder: Path, config: PrepConfig) -> dict[str, Any]:
    """`process`, with what a hostile file can provoke as a reason; anything else raised is a bug of ours."""
    try:
        return process(path, folder, config)
    except RejectedError as error:
        return {"rejected": str(error), "facts": error.facts}
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _MACHINE_ERRORS:
            raise
        if isinstance(error, MemoryError) or getattr(error, "code", None) == cv2.Error.StsNoMem:
            return {"rejected": f"needs too much memory: more than {config.memory_mb} MiB"}
        # PyAV fails in more ways than its own, on values that no file should hold.
        in_pyav = traceback.extract_tb(error.__traceback__)[-1].filename.startswith("av/")
        if not (in_pyav or isinstance(error, (av.FFmpegError, cv2.error))):
            raise
        words = " ".join(str(getattr(error, "strerror", None) or error).split())
        return {"rejected": f"cannot be processed: {words}"}


def _quiet_libraries() -> None:
    cv2.setNumThreads(1)
    av.logging.set_level(av.logging.ERROR)  # so that errors carry libav's own words ...
    logging.disable(logging.CRITICAL)  # ... which are not printed


if __name__ == "__main__":
    main()
