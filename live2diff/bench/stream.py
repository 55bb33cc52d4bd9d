"""The measurement behind `bench stream`: frames per second, delay and memory of a stream, and of its UNet
alone beside other ways to compute the same.

What one frame needs is in its call, whatever the way: the depth branch of the frame that enters included.
What a stream computes once for a prompt is not in ours, and is in the others', which know no such thing.

Ways are measured in turn, call by call, so that whatever else the machine does meets all of them alike. What
is excluded from the figures: warm-up frames, `EXCLUDED` ticks after them, and one call of every way that is
called more than once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from live2diff.bench.meter import Meter, flops, summary
from live2diff.bench.rivals import CHUNK, Chunks, Listing, NoCache
from live2diff.errors import UsageError
from live2diff.model.video_model import VideoModel
from live2diff.stream.engine import Stream
from live2diff.stream.pipeline import Switches, record

RIVALS = ("listing", "no_cache", "chunks")
EXCLUDED = 3  # ticks
# The demo's and the paper's choices of steps; for one, the middle of the first.
STEPS = {1: (35,), 2: (30, 40), 3: (30, 36, 42), 4: (20, 27, 34, 41)}


@dataclass(frozen=True)
class Case:
    """One line of the figures."""

    rows: int
    size: tuple[int, int]


def measure_stream(model: VideoModel, case: Case, frames: int, switches: Switches) -> dict[str, Any]:
    """A stream of random pictures, `frames` of them timed one by one, from uint8 to uint8."""
    meter = Meter(model.device)
    meter.forget_peak()
    generator = np.random.default_rng(0)
    shape = (case.size[1], case.size[0], 3)
    pictures = [generator.integers(0, 256, shape, dtype=np.uint8) for _ in range(4)]
    stream = Stream(model, "a street", size=case.size, steps=STEPS[case.rows], switches=switches)
    start, pushed, first = time.perf_counter(), 0, 0.0
    began: list[float] = []
    delays: list[float] = []
    ticks: list[float] = []
    finished = 0
    while len(ticks) < frames + EXCLUDED + case.rows:
        began.append(time.perf_counter())
        done = stream.push(pictures[pushed % len(pictures)])
        now = time.perf_counter()
        pushed += 1
        if done and not first:
            first = now - start
        if pushed > stream.warmup:
            ticks.append(now - began[-1])
        delays += [now - began[finished + i] for i in range(len(done))]
        finished += len(done)
    ticks = ticks[-frames:]
    stream.begin(pictures[0])
    operations = meter.operations(stream.pipeline.run)
    stream.finish(pictures[0])
    return {
        "rows": case.rows,
        "size": list(case.size),
        "fps": len(ticks) / sum(ticks),
        **summary(ticks),
        "first_frame_s": first,
        "delay_ms": 1000 * statistics.median(delays[-frames:]),
        "peak_bytes": meter.peak_bytes(),
        "memory_bytes": stream.memory_bytes,
        **operations,
    }


def measure_unet(
    model: VideoModel,
    case: Case,
    frames: int,
    switches: Switches,
    rivals: Sequence[str],
    ceilings: dict[str, float],
) -> list[dict[str, Any]]:
    """The UNet's share of one frame, ours and the rivals'; ours first."""
    meter = Meter(model.device)
    ways = {"ours": _ours(model, case, switches), **_rivals(model, case, rivals)}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(-1, frames):
        for name, (call, _) in ways.items():
            # Whole clips take long: they have one turn in 16, and their only call counts.
            due = turn % 16 == 0 or (turn < 0 and frames > 16)
            if name in ("no_cache", "chunks") and not due:
                continue
            seconds = meter.time(call)
            if turn >= 0:
                taken[name].append(seconds)
    work = flops(_ours(model, case, Switches())[0])
    weights = sum(p.nbytes for p in model.unet.parameters())
    size = _new_memory(model, case, switches).nbytes
    figures = []
    for name, (_, calls) in ways.items():
        clock = [seconds * calls for seconds, _ in taken[name]]
        core = statistics.median(seconds * calls for _, seconds in taken[name])
        own = statistics.median(clock)
        ours = figures[0] if figures else None
        figures.append(
            {
                "rows": case.rows,
                "size": list(case.size),
                "way": name,
                **summary(clock),
                "core_s": core,
                "timed_calls": len(clock),
                "times_ours": 1.0 if ours is None else 1000 * own / ours["p50_ms"],
                "times_ours_core": 1.0 if ours is None else core / ours["core_s"],
            }
        )
    figures[0] |= {
        "tflop": work / 1e12,
        "tflops": work / figures[0]["p50_ms"] / 1e9,
        "gb_per_s": (weights + size) / figures[0]["p50_ms"] / 1e6,
    }
    figures[0]["of_ceiling"] = max(figures[0][name] / ceilings[name] for name in ("tflops", "gb_per_s"))
    return figures


def check(rows: Sequence[int], sizes: Sequence[tuple[int, int]], rivals: Sequence[str], frames: int) -> None:
    """Raises UsageError: figures that cannot be had."""
    if unknown := [count for count in rows if count not in STEPS]:
        raise UsageError(f"--rows {unknown[0]}: expected some of 1, 2, 3, 4")
    if wrong := [side for side in sizes if min(side) < 8 or side[0] % 8 or side[1] % 8]:
        raise UsageError(f"--size {wrong[0][0]}x{wrong[0][1]}: both sides must be multiples of 8")
    if unknown := [name for name in rivals if name not in RIVALS]:
        raise UsageError(f"--rivals {unknown[0]}: expected some of {', '.join(RIVALS)}")
    if not 1 <= frames <= 10_000:
        raise UsageError(f"--frames {frames}: expected 1 to 10000")


Way = tuple[Callable[[], Any], float]  # one call, and how many of them a frame takes


def _new_memory(model: VideoModel, case: Case, switches: Switches):
    width, height = (side // model.downscale for side in case.size)
    return model.unet.new_memory(case.rows, height, width, precision=switches.memory)


def _inputs(model: VideoModel, case: Case, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random latents and depth latents (T, C, frames, h, w)."""
    width, height = (side // model.downscale for side in case.size)
    shape = (case.rows, model.unet.config.in_channels, frames, height, width)
    sample, depth = (torch.randn(shape, device=model.device, dtype=model.unet.dtype) for _ in range(2))
    return sample, depth


def _ours(model: VideoModel, case: Case, switches: Switches) -> Way:
    unet = model.unet
    (sample,), (depth,) = (x.unbind(2) for x in _inputs(model, case, 1))
    memory = _new_memory(model, case, switches)
    memory.warm.fill_(True)
    memory.count.fill_(unet.window)  # every slot is visible, as after the first frames
    live = torch.ones(case.rows, dtype=torch.bool, device=model.device)
    constants = unet.constants(_timesteps(model, case), model.text(["a street"]).to(unet.dtype))
    entering, waiting = depth[:1], unet.depth_residual(depth[1:])

    @torch.no_grad()
    def tick() -> torch.Tensor:
        residual = torch.cat([unet.depth_residual(entering), waiting])  # the others' is kept
        return unet.advance(memory, sample, constants, residual, live, switches.kernel == "triton")

    call = tick
    if switches.compile:
        backend = switches.compile if isinstance(switches.compile, str) else "inductor"
        call = torch.compile(tick, fullgraph=True, dynamic=False, backend=backend)
    return (record(call).replay if switches.cuda_graph else call), 1


def _rivals(model: VideoModel, case: Case, names: Sequence[str]) -> dict[str, Way]:
    unet, ways = model.unet, {}
    timesteps, text = _timesteps(model, case), model.text(["a street"]).to(unet.dtype)
    (sample,), (depth,) = (x.unbind(2) for x in _inputs(model, case, 1))
    if "listing" in names:
        listing = Listing(unet, case.rows)
        listing.start(*_inputs(model, case, 1)[0].shape[-2:])
        ways["listing"] = lambda: listing.step(sample, timesteps, text, depth), 1
    if "no_cache" in names:
        plain = NoCache(unet)
        plain.warm_up(*_inputs(model, case, unet.warmup))
        plain.recent.extend([torch.cat([sample, depth], dim=1)] * (unet.window - unet.warmup))
        ways["no_cache"] = lambda: plain.step(sample, timesteps, text, depth), 1
    if "chunks" in names:
        chunks, clip = Chunks(unet), _inputs(model, case, CHUNK)[0][:1]
        ways["chunks"] = lambda: chunks.step(clip, timesteps[0], text), case.rows / CHUNK
    return ways


def _timesteps(model: VideoModel, case: Case) -> torch.Tensor:
    return torch.tensor([999 - 20 * step for step in STEPS[case.rows]], device=model.device)
