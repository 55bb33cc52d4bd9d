"""Streams that share every tick of the UNet are what they would be alone."""

from __future__ import annotations

import numpy as np
import pytest
from omegaconf import OmegaConf

from live2diff.config import compose
from live2diff.errors import UsageError
from live2diff.model.build import build
from live2diff.model.video_model import VideoModel
from live2diff.stream import Stream
from live2diff.stream.batch import Batch
from tests.model.tiny import randomise

SIZE, STEPS = (40, 72), (20, 30, 40)


@pytest.fixture(scope="module")
def model() -> VideoModel:
    model = build(OmegaConf.to_container(compose("train", ["data.path=none"]).model), seed=0)  # type: ignore
    randomise(model.unet)
    return model


def clip(frames: int, seed: int) -> list[np.ndarray]:
    shape = (frames, SIZE[1], SIZE[0], 3)
    return list(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def alone(model, prompt, frames, **options) -> np.ndarray:
    stream = Stream(model, prompt, size=SIZE, steps=STEPS, **options)
    return np.stack([*(done for frame in frames for done in stream.push(frame)), *stream.flush()])


def assert_same(one, other) -> None:
    difference = np.abs(np.stack(one).astype(int) - other.astype(int))
    assert difference.max() <= 1  # one step of uint8 rounding
    assert (difference > 0).mean() < 0.01


def test_streams_join_pause_and_leave_at_any_time(model):
    clips = {"a": clip(20, 1), "b": clip(11, 2), "c": clip(10, 3)}
    seeds = {"a": 5, "b": 6, "c": 7}
    expected = {
        name: alone(model, name, frames, seed=seeds[name], noise="fixed" if name == "b" else "fresh")
        for name, frames in clips.items()
    }
    batch = Batch(model, 2, size=SIZE, steps=STEPS)
    streams, out = {"a": batch.join("a", seed=5)}, {name: [] for name in clips}
    left = {name: iter(frames) for name, frames in clips.items()}
    for tick in range(60):
        if tick == 3:
            streams["b"] = batch.join("b", seed=6, noise="fixed")
        now = {}
        for name, stream in list(streams.items()):
            if name == "a" and tick % 4 == 1:
                continue  # it has no new frame just now
            frame = next(left[name], None)
            if frame is not None:
                now[stream] = frame
                continue
            out[name] += batch.leave(stream)
            del streams[name]
            if name == "b":  # its seat is taken at once
                streams["c"] = batch.join("c", seed=7)
        for stream, done in batch.push(now).items():
            out[next(name for name, own in streams.items() if own is stream)] += done
    assert not streams
    for name, frames in expected.items():
        assert_same(out[name], frames)


def test_a_prompt_changes_for_one_stream_only(model):
    frames = clip(16, 1)
    batch = Batch(model, 2, size=SIZE, steps=STEPS)
    one, two = batch.join("a"), batch.join("a")
    results = {one: [], two: []}
    for number, frame in enumerate(frames):
        if number == 11:
            one.change("quite another text")
        for stream, done in batch.push({one: frame, two: frame}).items():
            results[stream] += done
    for stream in results:
        results[stream] += batch.leave(stream)
    changed = Stream(model, "a", size=SIZE, steps=STEPS)
    expected = []
    for number, frame in enumerate(frames):
        if number == 11:
            changed.change("quite another text")
        expected += changed.push(frame)
    assert_same(results[one], np.stack([*expected, *changed.flush()]))
    assert_same(results[two], alone(model, "a", frames))


def test_a_state_moves_from_a_stream_alone_into_a_seat(model):
    frames = clip(20, 1)
    single = Stream(model, "a", size=SIZE, steps=STEPS)
    for frame in frames[:13]:
        single.push(frame)
    batch = Batch(model, 2, size=SIZE, steps=STEPS)
    batch.join("other")
    seated = batch.join("yet another")
    seated.load_state_dict(single.state_dict())
    got = [done for frame in frames[13:] for done in batch.push({seated: frame})[seated]]
    expected = [done for frame in frames[13:] for done in single.push(frame)]
    assert_same([*got, *batch.leave(seated)], np.stack([*expected, *single.flush()]))


def test_a_stream_that_left_cannot_reach_the_one_in_its_seat(model):
    frames = clip(20, 1)
    batch = Batch(model, 1, size=SIZE, steps=STEPS)
    gone = batch.join("a")
    state = gone.state_dict()
    batch.leave(gone)
    new, out = batch.join("b"), []
    for number, frame in enumerate(frames):
        if number == 12:
            for use in (
                lambda: gone.change("quite another text"),
                lambda: gone.change(memory="restart"),
                lambda frame=frame: gone.push(frame),
                lambda: setattr(gone, "text", new.text * 0),
                lambda: gone.load_state_dict(state),
                gone.state_dict,
                gone.flush,
            ):
                with pytest.raises(UsageError, match="has left its seat"):
                    use()
        out += batch.push({new: frame})[new]
    assert_same([*out, *batch.leave(new)], alone(model, "b", frames))


def test_wrong_use_is_refused_and_changes_nothing(model):
    batch = Batch(model, 1, size=SIZE)
    stream = batch.join("a")
    with pytest.raises(UsageError, match="all 1 seats are taken"):
        batch.join("b")
    with pytest.raises(UsageError, match="takes uint8 RGB"):
        batch.push({stream: np.zeros((8, 8, 3), np.uint8)})
    assert not stream.unsettled
    batch.leave(stream)
    with pytest.raises(UsageError, match="no seat here"):
        batch.push({stream: clip(1, 1)[0]})
    with pytest.raises(UsageError, match="seats=0"):
        Batch(model, 0)
