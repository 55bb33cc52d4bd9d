"""The project's one sentence: trained with a mask, streamed with a memory, and the two are one function."""

from __future__ import annotations

import pytest
import torch

from tests.model.tiny import make_inputs, make_unet, stream, whole

TOLERANCE = 1e-5


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
@pytest.mark.parametrize(("window", "warmup"), [(16, 8), (8, 4)])
@pytest.mark.parametrize("frames", [16, 40])
def test_stream_equals_masked_forward(rows, window, warmup, frames):
    unet = make_unet(window=window, warmup=warmup)
    inputs = make_inputs(rows, frames)
    error = (stream(unet, *inputs) - whole(unet, *inputs)).abs()
    assert not error.isnan().any()
    assert error.amax() < TOLERANCE


def test_odd_latent_sizes_stream_too():
    unet = make_unet()
    inputs = make_inputs(2, 20, size=(6, 11))
    assert (stream(unet, *inputs) - whole(unet, *inputs)).abs().amax() < TOLERANCE


def test_mid_block_motion_module_streams_too():
    unet = make_unet(use_motion_mid_block=True)
    inputs = make_inputs(2, 20)
    assert (stream(unet, *inputs) - whole(unet, *inputs)).abs().amax() < TOLERANCE


def test_without_warm_up_the_stream_is_the_plain_causal_mask():
    unet = make_unet(warmup=0)
    inputs = make_inputs(2, 20)
    assert (stream(unet, *inputs) - whole(unet, *inputs, mask="causal")).abs().amax() < TOLERANCE


def test_windowed_forward_agrees_with_the_plain_one_where_nothing_is_evicted():
    unet = make_unet()
    samples, depths, timesteps, text = make_inputs(1, 40)
    long = whole(unet, samples, depths, timesteps, text)
    short = whole(unet, samples[:, :, :16], depths[:, :, :16], timesteps, text)
    assert (long[:, :, :16] - short).abs().amax() < TOLERANCE


def test_a_dead_row_leaves_no_trace():
    unet = make_unet()
    samples, depths, timesteps, text = make_inputs(2, 24)
    memory = unet.new_memory(2, 8, 8)
    for r in range(2):
        unet.warm_up(memory, r, samples[r : r + 1, :, :8], timesteps[r], text, depths[r : r + 1, :, :8])
    for frame in range(8, 20):  # past the first eviction
        unet.step(memory, samples[:, :, frame], timesteps, text, depths[:, :, frame])
    before = memory.state_dict()
    for value in (1e30, float("inf"), float("nan")):
        dirty = samples[:, :, 20].clone()
        dirty[1] = value
        unet.step(memory, dirty, timesteps, text, depths[:, :, 20], torch.tensor([False, False]))
    for name, tensor in memory.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_rows_are_independent():
    """A row predicts the same whatever its neighbour holds."""
    unet = make_unet()
    samples, depths, timesteps, text = make_inputs(2, 20)
    both = stream(unet, samples, depths, timesteps, text)
    changed = samples.clone()
    changed[1] += 1
    assert torch.equal(both[0], stream(unet, changed, depths, timesteps, text)[0])


def test_saved_memory_continues_bit_for_bit():
    unet = make_unet()
    samples, depths, timesteps, text = make_inputs(2, 30)
    memory = unet.new_memory(2, 8, 8)
    run = lambda m, f: unet.step(m, samples[:, :, f], timesteps, text, depths[:, :, f])  # noqa: E731
    for r in range(2):
        unet.warm_up(memory, r, samples[r : r + 1, :, :8], timesteps[r], text, depths[r : r + 1, :, :8])
    for frame in range(8, 19):
        run(memory, frame)
    saved = memory.state_dict()  # copies: the steps that follow must not reach them
    expected = [run(memory, frame) for frame in range(19, 30)]
    restored = unet.new_memory(2, 8, 8)
    restored.load_state_dict(saved)
    for frame, eps in zip(range(19, 30), expected, strict=True):
        assert torch.equal(run(restored, frame), eps)


def test_reset_memory_equals_a_new_one():
    unet = make_unet()
    inputs = make_inputs(2, 20)
    memory = unet.new_memory(2, 8, 8)
    first = stream(unet, *inputs, memory=memory)
    memory.reset()
    assert torch.equal(stream(unet, *inputs, memory=memory), first)


def test_interleaved_streams_do_not_meet():
    unet = make_unet()
    one, two = make_inputs(2, 20, seed=1), make_inputs(2, 20, seed=2)
    alone = [stream(unet, *one), stream(unet, *two)]
    memories = [unet.new_memory(2, 8, 8) for _ in range(2)]
    streams = (one, two)
    for memory, (samples, depths, timesteps, text) in zip(memories, streams, strict=True):
        for r in range(2):
            unet.warm_up(memory, r, samples[r : r + 1, :, :8], timesteps[r], text, depths[r : r + 1, :, :8])
    for tick in range(11):
        for memory, (samples, depths, timesteps, text), expected in zip(
            memories, streams, alone, strict=True
        ):
            frame = [8 + tick, max(8 + tick - 1, 8)]
            pick = lambda x: torch.stack([x[r, :, f] for r, f in enumerate(frame)])  # noqa: E731, B023
            live = torch.tensor([True, tick > 0])
            eps = unet.step(memory, pick(samples), timesteps, text, pick(depths), live)
            assert torch.equal(eps[0], expected[0, :, frame[0]])


def test_memory_of_another_kind_is_refused():
    unet = make_unet()
    for other in (unet.new_memory(3, 8, 8), unet.new_memory(2, 4, 8), unet.new_memory(2, 8, 8, warmup=4)):
        with pytest.raises(ValueError, match="does not fit"):
            unet.new_memory(2, 8, 8).load_state_dict(other.state_dict())


def test_a_row_warmed_up_anew_forgets_even_nan():
    unet = make_unet()
    samples, depths, timesteps, text = make_inputs(1, 12)
    memory = unet.new_memory(1, 8, 8)

    def begin():
        unet.warm_up(memory, 0, samples[:, :, :8], timesteps[0], text, depths[:, :, :8])
        return unet.step(memory, samples[:, :, 8], timesteps, text, depths[:, :, 8])

    first = begin()
    unet.step(memory, samples[:, :, 9] * float("nan"), timesteps, text)
    assert torch.equal(begin(), first)


def test_wrong_shapes_are_refused_and_change_nothing():
    unet = make_unet()
    samples, depths, timesteps, text = make_inputs(3, 12)
    memory = unet.new_memory(2, 8, 8)
    with pytest.raises(ValueError, match=r"step takes \(2, C, H, W\)"):
        unet.step(memory, samples[:, :, 8], timesteps, text)
    with pytest.raises(ValueError, match=r"warm-up takes \(1, C, 8, H, W\)"):
        unet.warm_up(memory, 0, samples[:1, :, :7], timesteps[0], text)
    with pytest.raises(ValueError, match="rows 0 to 1"):
        unet.warm_up(memory, 2, samples[:1, :, :8], timesteps[0], text)
    assert not memory.warm.any()


def test_memory_size_does_not_grow():
    unet = make_unet()
    memory = unet.new_memory(2, 8, 8)
    before = memory.nbytes
    stream(unet, *make_inputs(2, 30), memory=memory)
    assert memory.nbytes == before
