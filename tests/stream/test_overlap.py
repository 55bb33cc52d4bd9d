"""`overlap` gives the same video, bit for bit, one tick later; a change of prompt reaches one frame more."""

from __future__ import annotations

import numpy as np
import pytest

from live2diff.stream import Stream
from live2diff.stream.batch import Batch
from live2diff.stream.pipeline import Switches
from tests.stream.test_switches import STEPS, make_model, run

BESIDE, SIZE = Switches(overlap=True), (24, 16)


def pictures(frames: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (frames, SIZE[1], SIZE[0], 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def model():
    return make_model(
        block_out_channels=[32, 64],
        down_block_types=["CrossAttnDownBlockMotion", "DownBlockMotion"],
        up_block_types=["UpBlockMotion", "CrossAttnUpBlockMotion"],
    )


@pytest.mark.parametrize(("rows", "noise"), [(1, "fresh"), (2, "fixed"), (4, "fresh")])
def test_the_same_video_one_tick_later(model, rows, noise):
    frames = pictures(8 + rows + 9)  # past the first eviction
    videos, counts = [], []
    for switches in (Switches(), BESIDE):
        stream = Stream(model, "x", size=SIZE, steps=STEPS[rows], noise=noise, switches=switches)
        done = [stream.push(frame) for frame in frames] + [stream.flush()]
        counts.append([len(some) for some in done[:-1]])
        videos.append(np.stack([picture for some in done for picture in some]))
    now, later = counts
    assert later == [*now[:8], 0, *now[8:-1]]
    assert np.array_equal(*videos)


def test_new_pasts_come_at_the_same_frames(model):
    """What empties the pipeline leaves the noise of both where it was."""
    videos = []
    for switches in (Switches(), BESIDE):
        stream, shown = Stream(model, "x", size=SIZE, switches=switches), []
        for number, frame in enumerate(pictures(30)):
            if number in (11, 20):
                shown += stream.change(f"prompt {number}", memory="rewarm" if number == 11 else "restart")
            shown += stream.push(frame)
        videos.append(np.stack([*shown, *stream.flush()]))
    assert np.array_equal(*videos)


def test_a_change_of_prompt_reaches_the_frame_that_waits(model):
    frames, videos = pictures(16), []
    for switches, at in ((Switches(), 11), (BESIDE, 12)):  # before the same frame meets the UNet
        stream, shown = Stream(model, "x", size=SIZE, switches=switches), []
        for number, frame in enumerate(frames):
            if number == at:
                shown += stream.change("another", blend=3)
            shown += stream.push(frame)
        videos.append(np.stack([*shown, *stream.flush()]))
    assert np.array_equal(*videos)


def test_a_state_goes_on_bit_for_bit(model):
    frames = pictures(20)
    stream = Stream(model, "x", size=SIZE, switches=BESIDE)
    for frame in frames[:13]:
        stream.push(frame)
    state = stream.state_dict()
    other = Stream(model, "y", size=SIZE, seed=5, switches=BESIDE)
    other.load_state_dict(state)
    assert np.array_equal(run(other, frames[13:]), run(stream, frames[13:]))
    plain = Stream(model, "x", size=SIZE)
    before = plain.state_dict()
    with pytest.raises(ValueError, match="its entering is"):
        plain.load_state_dict(state)
    after = plain.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    del before["entering"]
    with pytest.raises(ValueError, match="its entering is missing"):
        plain.load_state_dict(before)


def test_streams_that_sit_ticks_out_keep_the_frame_that_waits(model):
    """One stream of two is given a frame only at every other tick."""
    frames = pictures(22)
    batch = Batch(model, 2, size=SIZE, switches=BESIDE)
    steady, slow = (batch.join("x", seed=seed) for seed in (1, 2))
    shown = {steady: [], slow: []}
    for number, frame in enumerate(frames):
        given = {steady: frame} | ({slow: frames[number // 2]} if number % 2 == 0 else {})
        for stream, done in batch.push(given).items():
            shown[stream] += done
    for stream, seed, own in ((steady, 1, frames), (slow, 2, frames[:11])):
        alone = run(Stream(model, "x", size=SIZE, seed=seed), own)
        got = np.stack([*shown[stream], *batch.leave(stream)])
        assert np.abs(got.astype(int) - alone.astype(int)).max() <= 1


@pytest.mark.slow
def test_compiled_it_is_two_graphs(model):
    from torch._dynamo.utils import counters

    frames = pictures(14)
    plain = run(Stream(model, "x", size=SIZE), frames)
    counters.clear()
    stream = Stream(model, "x", size=SIZE, switches=Switches(compile="eager", overlap=True))
    got = run(stream, frames)
    assert np.abs(got.astype(int) - plain.astype(int)).max() <= 1
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"] and not counters["recompiles"]
