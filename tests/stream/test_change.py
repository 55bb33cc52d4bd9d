"""What can change while a stream runs: prompt, LoRA, memory. Each is held to a stream that began so."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from live2diff.errors import UsageError
from live2diff.interop.lora import add_lora, lora_names, remove_lora
from live2diff.stream import Stream
from tests.interop.lora.files import (
    ATTENTION,
    MOTION,
    TEXT_ATTENTION,
    diffusers_peft,
    kohya,
    random_pairs,
    save,
)
from tests.stream.test_engine import SIZE, run, together, video

STEPS = (20, 30, 40)


def new(model, prompt="a", **options):
    return Stream(model, prompt, size=SIZE, steps=STEPS, noise="fixed", **options)


def push(stream, frames):
    return [done for frame in frames for done in stream.push(frame)]


def test_another_prompt_shows_from_the_next_frame_on(model):
    frames = video(20)
    same, other = new(model), new(model)
    assert np.array_equal(push(same, frames[:12]), push(other, frames[:12]))
    assert other.change("b") == []
    # The frames in the pipeline follow with the steps they have left: the next output is another already.
    assert not np.array_equal(same.push(frames[12]), other.push(frames[12]))


def test_changing_to_the_same_prompt_changes_nothing(model):
    frames = video(16)
    expected = together(run(new(model), frames))
    stream = new(model)
    done = push(stream, frames[:11])
    assert stream.change("a") == []
    assert np.array_equal([*done, *push(stream, frames[11:]), *stream.flush()], expected)


def test_a_change_before_the_first_frame_is_as_if_it_had_begun_so(model):
    frames = video(12)
    stream = new(model, "a")
    stream.change("b", memory="rewarm")
    assert np.array_equal(together(run(stream, frames)), together(run(new(model, "b"), frames)))


def test_restart_equals_a_new_stream(model):
    """With noise fixed, what follows depends on nothing before it."""
    frames = video(24)
    stream = new(model)
    before = push(stream, frames[:12])
    rest = stream.change("b", memory="restart")
    assert len(before) == 10 and len(rest) == 2  # nothing is lost
    whole = new(model)
    assert np.array_equal([*before, *rest], [*push(whole, frames[:12]), *whole.flush()])
    after = together(run(stream, frames[12:]))
    assert np.array_equal(after, together(run(new(model, "b"), frames[12:])))


def test_rewarm_equals_a_stream_that_began_with_the_last_frames(model):
    frames = video(24)
    stream, fresh = new(model), new(model, "b")
    before = push(stream, frames[:14])
    rest = stream.change("b", memory="rewarm")
    assert len(before) + len(rest) == 14
    push(fresh, frames[6:14])
    assert np.array_equal(together(run(stream, frames[14:])), together(run(fresh, frames[14:])))


def test_rewarm_while_the_warm_up_gathers_takes_nothing_away(model):
    frames = video(14)
    stream = new(model)
    assert push(stream, frames[:5]) == []
    assert stream.change("b", memory="rewarm") == []
    got = [*push(stream, frames[5:]), *stream.flush()]
    assert np.array_equal(got, together(run(new(model, "b"), frames)))


def test_restart_while_the_warm_up_gathers_loses_no_frame(model):
    frames = video(14)
    stream = new(model)
    push(stream, frames[:5])
    first = stream.change(memory="restart")
    assert np.array_equal(first, together(run(new(model), frames[:5])))
    assert len([*push(stream, frames[5:]), *stream.flush()]) == 9


def test_a_blend_goes_through_every_state_between(model):
    start, end = (model.text([prompt]) for prompt in "ab")
    stream = new(model)
    push(stream, video(10))
    stream.change("b", blend=4)
    seen = []
    for frame in video(6, seed=1):
        stream.push(frame)
        seen.append(stream.text.clone())
    expected = [torch.lerp(start, end, min(step, 4) / 4) for step in range(1, 7)]
    assert torch.equal(torch.stack(seen), torch.stack(expected))


def test_state_restored_in_a_blend_is_bit_identical(model):
    frames = video(20)
    stream = new(model)
    push(stream, frames[:10])
    stream.change("b", blend=6)
    push(stream, frames[10:13])
    restored = new(model, "c", seed=9)
    restored.load_state_dict(stream.state_dict())
    assert np.array_equal(*(together(run(s, frames[13:])) for s in (stream, restored)))
    # What a re-warm needs is in the state, too.
    for s in (stream, restored):
        s.change(memory="rewarm")
    assert np.array_equal(*(together(run(s, frames)) for s in (stream, restored)))


def test_lora_strength_is_a_live_number(model, tmp_path):
    model = copy.deepcopy(model)
    frames = video(20)
    plain = together(run(new(model), frames))
    pairs = random_pairs(model, rf"{MOTION}|{ATTENTION}")  # what is projected once per prompt is in it
    add_lora(model, save(diffusers_peft(pairs), tmp_path / "ink.safetensors"), 0.0, name="ink")
    stream = new(model)
    done = push(stream, frames[:12])
    stream.change(loras={"ink": 1.5})
    strong = [*done, *push(stream, frames[12:]), *stream.flush()]
    assert np.array_equal(strong[:10], plain[:10]) and not np.array_equal(strong[10:], plain[10:])
    stream = new(model)
    done = push(stream, frames[:12])
    stream.change(loras={"ink": 0.0})
    assert not np.array_equal(done, plain[:10])  # it began at 1.5
    stream.change(memory="restart")
    assert np.array_equal(together(run(stream, frames[12:])), together(run(new(model), frames[12:])))
    with pytest.raises(UsageError, match="'oil'; there are ink"):
        stream.change(loras={"oil": 1.0})
    remove_lora(model, "ink")
    assert lora_names(model) == []
    assert np.array_equal(together(run(new(model), frames)), plain)


def test_wrong_changes_are_refused(model):
    stream = new(model)
    for wrong in ({"memory": "reset"}, {"blend": -1}, {"blend": 3, "memory": "rewarm"}):
        with pytest.raises(UsageError, match="expected"):
            stream.change("b", **wrong)


def test_a_lora_of_the_text_encoder_follows_its_strength(model, tmp_path):
    model = copy.deepcopy(model)
    add_lora(
        model, save(kohya(random_pairs(model, TEXT_ATTENTION)), tmp_path / "ink.safetensors"), 0.0, name="ink"
    )
    stream = new(model)
    push(stream, video(9))
    before = stream.text.clone()
    stream.change(loras={"ink": 1.0})
    push(stream, video(1))
    assert not torch.equal(stream.text, before) and torch.equal(stream.text, model.text(["a"]))


def test_an_unknown_lora_changes_nothing_and_loses_nothing(model, tmp_path):
    model = copy.deepcopy(model)
    add_lora(
        model,
        save(diffusers_peft(random_pairs(model, ATTENTION)), tmp_path / "ink.safetensors"),
        0.0,
        name="ink",
    )
    frames = video(20)
    expected = together(run(new(model), frames))
    stream = new(model)
    done = push(stream, frames[:12])
    with pytest.raises(UsageError, match="'oil'"):
        stream.change("b", loras={"ink": 1.5, "oil": 1.0}, memory="restart")
    assert np.array_equal([*done, *push(stream, frames[12:]), *stream.flush()], expected)
