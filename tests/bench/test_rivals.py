"""The ways that `bench stream` compares with compute what they are said to."""

from __future__ import annotations

import torch
from diffusers import UNetMotionModel

from live2diff.bench.rivals import CHUNK, Chunks, Listing, NoCache
from tests.model.tiny import make_inputs, make_unet

ROWS = 2


def run(unet, frames, step):
    """What `step` gives for every frame after the warm-up, and what the stream gives: (N, ...) each."""
    samples, depths, timesteps, text = make_inputs(ROWS, frames)
    memory = unet.new_memory(ROWS, 8, 8)
    for r in range(ROWS):
        unet.warm_up(memory, r, samples[r : r + 1, :, :8], timesteps[r], text, depths[r : r + 1, :, :8])
    theirs, ours = [], []
    for frame in range(8, frames):
        inputs = (samples[:, :, frame], timesteps, text, depths[:, :, frame])
        theirs.append(step(*inputs))
        ours.append(unet.step(memory, *inputs))
    return torch.stack(theirs), torch.stack(ours)


def test_the_listings_equal_the_stream_before_and_after_eviction():
    unet = make_unet()
    samples, depths, timesteps, text = make_inputs(ROWS, 30)
    listing = Listing(unet, ROWS)
    first = listing.warm_up(samples[:, :, :8], timesteps, text, depths[:, :, :8])
    alone = unet.warm_up(
        unet.new_memory(1, 8, 8), 0, samples[1:, :, :8], timesteps[1], text, depths[1:, :, :8]
    )
    assert (first[1] - alone[0]).abs().amax() < 1e-5
    theirs, ours = run(unet, 30, listing.step)
    assert (theirs - ours).abs().amax() < 1e-5


def test_without_a_cache_it_equals_the_stream_until_a_frame_is_evicted():
    unet = make_unet()
    samples, depths, _, _ = make_inputs(ROWS, 20)
    plain = NoCache(unet)
    plain.warm_up(samples[:, :, :8], depths[:, :, :8])
    theirs, ours = run(unet, 20, plain.step)
    error = (theirs - ours).abs().flatten(1).amax(1)
    assert error[:8].amax() < 1e-5
    assert error[8:].amin() > 1e-4  # what the stream's past saw of frame 8 is missing here


def test_chunks_are_diffusers_own_model_with_our_weights():
    unet = make_unet()
    samples, _, timesteps, text = make_inputs(1, CHUNK)
    chunks = Chunks(unet)
    assert type(chunks.unet) is UNetMotionModel
    got = chunks.step(samples, timesteps[0], text)
    assert got.shape == samples.shape
    ours, theirs = unet.conv_in.weight, chunks.unet.conv_in.weight
    assert ours.data_ptr() == theirs.data_ptr()
    # The same weights under the bidirectional mask differ only by the group norm over frames.
    with torch.no_grad():
        for module, _ in unet.temporal:
            module.proj_out.weight.zero_()
            module.proj_out.bias.zero_()
        expected = unet(samples, timesteps[0], text, mask="bidirectional")
    assert (chunks.step(samples, timesteps[0], text) - expected).abs().amax() < 1e-5
