"""Hours of streaming in minutes: nothing grows, nothing drifts."""

from __future__ import annotations

import gc
import hashlib
import os

import numpy as np
import psutil
import pytest

from live2diff.stream import Stream

FRAMES, RESTORED_AT, SETTLED = 10_000, 9_000, 1_000
PROMPT_EVERY = 200  # 50 prompts
# New sessions: two while the process settles, so that it has seen every size; then five.
RESTARTS = (300, 600, 1_700, 3_400, 5_100, 6_800, 8_500)
SIZES = ((32, 32), (24, 40), (40, 24))  # of one session after another
MIB = 2**20


def frame(number: int) -> np.ndarray:
    width, height = size_at(number)
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def size_at(number: int) -> tuple[int, int]:
    return SIZES[sum(restart <= number for restart in RESTARTS) % len(SIZES)]


def play(stream: Stream, first: int, last: int, watch=lambda number, stream: None) -> list[bytes]:
    """Frames [first, last) with their changes; returns the hash of each picture that came out."""
    shown = []
    for number in range(first, last):
        if number in RESTARTS:
            stream = Stream(stream.model, f"session {number}", size=size_at(number), seed=number)
        done = []
        if number % PROMPT_EVERY == 0:
            keep = number // PROMPT_EVERY % 2
            memory, blend = ("keep", 5) if keep else ("rewarm", 0)
            done += stream.change(f"prompt {number}", memory=memory, blend=blend)
        done += stream.push(frame(number))
        shown += [hashlib.sha256(picture.tobytes()).digest() for picture in done]
        watch(number, stream)
    return shown


@pytest.mark.slow
def test_ten_thousand_frames(model):
    process = psutil.Process()
    rss: list[tuple[int, int]] = []
    files: set[int] = set()
    cache: dict[tuple[int, int], set[int]] = {}
    state = {}

    def watch(number: int, stream: Stream) -> None:
        if number + 1 in (SETTLED, RESTORED_AT):  # the first only for its memory, which the second takes over
            state.update(stream.state_dict())
        if number >= SETTLED and number % 250 == 0:
            gc.collect()
            rss.append((number, process.memory_info().rss))
            files.add(len(os.listdir("/proc/self/fd")))
            cache.setdefault(stream.size, set()).add(stream.memory_bytes)

    shown = play(Stream(model, "a", size=SIZES[0]), 0, FRAMES, watch)

    numbers, sizes = np.array(rss).T
    slope = np.polyfit(numbers, sizes, 1)[0] * (FRAMES - SETTLED)  # growth over the run, by a fitted line
    print(f"RSS grew by {slope / MIB:.2f} MiB over {FRAMES - SETTLED} frames; by 250 frames, in MiB:")
    print((sizes / MIB).round(1).tolist())
    assert slope < MIB
    assert len(files) == 1
    assert len(cache) == len(SIZES) and all(len(sizes) == 1 for sizes in cache.values())

    restored = Stream(model, "z", size=size_at(RESTORED_AT), seed=9)
    restored.load_state_dict(state)
    again = play(restored, RESTORED_AT, FRAMES)
    assert len(again) > 900 and again == shown[-len(again) :]
