"""The child process: one source in, clip files and a result out.

The file is hostile: it may crash the decoder, fill the memory or never end. So this process has an
address-space limit, is killed by its parent at a time limit, dies with its parent, and writes only into the
job's folder. It imports no torch, to start fast.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import os
import resource
import signal
import sys
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

from data_prep.children import EXIT_MACHINE
from data_prep.clips import Clip, plan_clips, resample
from data_prep.config import PrepConfig
from data_prep.decode import RejectedError, short_side
from data_prep.encode import encode_clips
from data_prep.probe import Probe, probe
from data_prep.shots import CutDetector, split_shots

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
    """Decode, cut and encode one source; the clip files go to `folder`.

    Returns:
        `facts`: what the probe found, and the cuts. `clips`: one dict per clip file. JSON values throughout.

    Raises:
        RejectedError: no clip comes out, with the reason.
    """
    detector = CutDetector(config.cut_ratio, config.cut_change)
    found = probe(path, detector.see)
    cuts = sorted({*detector.cuts, *found.holes})
    facts = {**found.facts(), "cuts": cuts}
    clips, fps = _plan(found, cuts, config, facts)
    size = short_side(found.geometry.upright, config.size)
    files = encode_clips(path, clips, folder, fps=fps, size=size, turns=found.geometry.turns, crf=config.crf)
    pairs = zip(clips, files, strict=True)
    return {"facts": facts, "clips": [_describe(clip, file, fps, size) for clip, file in pairs]}


def _plan(
    found: Probe, cuts: list[int], config: PrepConfig, facts: dict[str, Any]
) -> tuple[list[Clip], Fraction]:
    width, height = found.geometry.upright
    if min(width, height) < config.min_size:
        needed = f"the short side must be at least {config.min_size}"
        raise RejectedError(f"too small: {width}x{height} pixels, {needed}", facts)
    fps = Fraction(config.fps).limit_denominator(1001) if config.fps else found.rate
    shots = split_shots(len(found.times), cuts, config.trim)
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


def limit_process(parent: int, memory_mb: int, seconds: float) -> None:
    """Make this process safe to leave alone with a hostile file. `parent`: the process it may not outlive."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the call above
            os._exit(EXIT_MACHINE)
    limits = {
        resource.RLIMIT_AS: memory_mb * 2**20,
        resource.RLIMIT_CPU: int(seconds) + 5,  # ends a stray child where there is no parent-death signal
        resource.RLIMIT_CORE: 0,
    }
    for kind, value in limits.items():
        with suppress(ValueError, OSError):  # not every system has every limit
            resource.setrlimit(kind, (value, value))


def main() -> None:
    """Read the job as JSON from standard input; write `result.json` into its folder."""
    job = json.load(sys.stdin)
    config = PrepConfig(**job["config"])
    limit_process(job["parent"], config.memory_mb, config.timeout_s)
    _quiet_libraries()
    folder = Path(job["folder"])
    try:
        try:
            result = process(job["path"], folder, config)
        except RejectedError as error:
            result = {"rejected": str(error), "facts": error.facts}
        except MemoryError:
            result = {"rejected": f"needs too much memory: more than {config.memory_mb} MiB"}
        (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    except OSError as error:
        if error.errno not in _MACHINE_ERRORS:
            raise
        print(f"cannot write ({error.strerror or error})", file=sys.stderr)
        sys.exit(EXIT_MACHINE)


def _quiet_libraries() -> None:
    import av.logging
    import cv2

    cv2.setNumThreads(1)
    av.logging.set_level(av.logging.ERROR)  # so that errors carry libav's own words ...
    logging.disable(logging.CRITICAL)  # ... which are not printed


if __name__ == "__main__":
    main()
