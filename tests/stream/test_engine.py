"""The engine on a tiny model with random weights: order, count, seeds, state, equality to the plain way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from live2diff.errors import UsageError
from live2diff.images import to_tensor, to_uint8
from live2diff.model.video_model import VideoModel
from live2diff.stream import Stream

SIZE = (32, 32)


def video(frames: int, seed: int = 0, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return list(rng.integers(0, 256, (frames, size[1], size[0], 3), dtype=np.uint8))


def run(stream: Stream, frames: list[np.ndarray]) -> list[list[np.ndarray]]:
    """What comes out at every push, and at the end."""
    return [*(stream.push(frame) for frame in frames), stream.flush()]


def together(outputs: list[list[np.ndarray]]) -> np.ndarray:
    return np.stack([frame for done in outputs for frame in done])


@pytest.mark.parametrize("steps", [(40,), (30, 40), (20, 30, 40), (10, 20, 30, 40)])
def test_as_many_out_as_in(model, steps):
    outputs = run(Stream(model, "x", size=SIZE, steps=steps), video(14))
    delay = len(steps) - 1
    assert [len(done) for done in outputs] == [0] * 7 + [8] + [0] * delay + [1] * (6 - delay) + [delay]


@pytest.mark.parametrize(
    ("steps", "mask"), [((40,), None), ((20, 30, 40), None), ((30, 40), "causal"), ((40,), "warmup_causal")]
)
def test_equals_frame_by_frame_denoising_of_the_whole_clip(model, steps, mask):
    """The pipelined stream is LCM sampling of the clip, one row after another, under the mask.

    Each row's input is the row before's output: errors would add up, and any slip in order, noise or
    depth shows. `causal` with this model, trained with a warm-up, is row B of the paper's Table 2.
    """
    frames = video(20)
    stream = Stream(model, "x", size=SIZE, steps=steps, noise="fixed", seed=3, mask=mask)
    mask = mask or model.settings.mask
    noise = stream._fixed
    got = together(run(stream, frames))

    images = to_tensor(np.stack(frames))[None]
    clean = model.encode(images)
    depth = masked(model, mask).clip_depth_latents(images)
    with torch.no_grad():
        for row, timestep in enumerate(stream.schedule.timesteps):
            at = slice(row, row + 1)
            level = [c[at, :, None] for c in (stream.schedule.alpha, stream.schedule.sigma)]
            noisy = level[0] * clean + level[1] * noise[at, :, None]
            eps = model.unet(noisy, timestep, model.text(["x"]), depth, mask)
            x0 = (noisy - level[1] * eps) / level[0]
            clean = stream.schedule.c_out[at, :, None] * x0 + stream.schedule.c_skip[at, :, None] * noisy
    expected = to_uint8(model.decode(clean)[0])
    difference = np.abs(got.astype(int) - expected.astype(int))
    assert difference.max() <= 1  # one step of uint8 rounding
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("noise", ["fresh", "fixed"])
def test_same_seed_same_video(model, noise):
    frames = video(12)
    first, again, other = (
        together(run(Stream(model, "x", size=SIZE, seed=seed, noise=noise), frames)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_state_restored_mid_stream_is_bit_identical(model):
    frames = video(24)
    stream = Stream(model, "x", size=SIZE, steps=(20, 30, 40))
    for frame in frames[:14]:
        stream.push(frame)
    state = stream.state_dict()
    expected = together([*(stream.push(frame) for frame in frames[14:]), stream.flush()])
    restored = Stream(model, "x", size=SIZE, steps=(20, 30, 40), seed=99)
    restored.load_state_dict(state)
    got = together([*(restored.push(frame) for frame in frames[14:]), restored.flush()])
    assert np.array_equal(got, expected)


def test_state_restored_during_the_warm_up(model):
    frames = video(12)
    stream = Stream(model, "x", size=SIZE)
    for frame in frames[:5]:
        stream.push(frame)
    restored = Stream(model, "x", size=SIZE, seed=99)
    restored.load_state_dict(stream.state_dict())
    expected, got = (together([*(s.push(f) for f in frames[5:]), s.flush()]) for s in (stream, restored))
    assert np.array_equal(got, expected)


def test_two_interleaved_streams_equal_two_separate_ones(model):
    clips = [video(16, seed) for seed in (1, 2)]
    alone = [together(run(Stream(model, p, size=SIZE, seed=5), c)) for p, c in zip("ab", clips, strict=True)]
    streams = [Stream(model, prompt, size=SIZE, seed=5) for prompt in "ab"]
    outputs: list[list[list[np.ndarray]]] = [[], []]
    for pair in zip(*clips, strict=True):
        for index, frame in enumerate(pair):
            outputs[index].append(streams[index].push(frame))
    for index, stream in enumerate(streams):
        outputs[index].append(stream.flush())
        assert np.array_equal(together(outputs[index]), alone[index])


def test_saved_and_loaded_model_streams_bit_identically(model, tmp_path):
    model.save(tmp_path / "model")
    again = VideoModel.load(tmp_path / "model")
    frames = video(14)
    streams = [Stream(m, "a red circle", size=SIZE) for m in (model, again)]
    first, second = (together(run(stream, frames)) for stream in streams)
    assert np.array_equal(first, second)
    assert again.settings == model.settings


def test_depth_and_prompt_matter(model):
    """Random weights include the depth branch's last layer: another depth or text is another video."""
    frames = video(10)
    prompts = [together(run(Stream(model, prompt, size=SIZE), frames)) for prompt in ("a", "b")]
    assert not np.array_equal(*prompts)
    blind = VideoModel(**{**vars(model), "depth": _Flat()})
    assert not np.array_equal(prompts[0], together(run(Stream(blind, "a", size=SIZE), frames)))


class _Flat(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(images[:, 0])


def test_constant_frames_stay_finite(model):
    black = [np.zeros((32, 32, 3), np.uint8)] * 12
    assert together(run(Stream(model, "x", size=SIZE), black)).shape == (12, 32, 32, 3)


def test_portrait_and_odd_multiples_of_eight(model):
    size = (40, 72)
    assert together(run(Stream(model, "x", size=size), video(10, size=size))).shape == (10, 72, 40, 3)


def test_of_a_clip_shorter_than_the_warm_up_the_last_frame_is_held(model):
    frames = video(5)
    short = Stream(model, "x", size=SIZE)
    held = Stream(model, "x", size=SIZE)
    expected = together(run(held, [*frames, *[frames[-1]] * 3]))[:5]
    assert np.array_equal(together(run(short, frames)), expected)


def test_wrong_sizes_are_refused(model):
    with pytest.raises(UsageError, match="multiples of 8"):
        Stream(model, "x", size=(30, 32))
    for frame in (np.zeros((16, 16, 3), np.uint8), np.zeros((32, 32, 3), np.float32)):
        with pytest.raises(UsageError, match=r"takes uint8 RGB \(32, 32, 3\)"):
            Stream(model, "x", size=SIZE).push(frame)


def masked(model, mask):
    return VideoModel(**{**vars(model), "settings": replace(model.settings, mask=mask)})


def test_a_plain_causal_model_streams_without_warm_up(model):
    outputs = run(Stream(masked(model, "causal"), "x", size=SIZE, steps=(30, 40)), video(12))
    assert [len(done) for done in outputs] == [0] + [1] * 12


def test_the_mask_of_a_stream_is_its_own(model):
    """Two streams on one model, one without kept frames; the model's settings stay."""
    frames = video(12)
    own = together(run(Stream(model, "x", size=SIZE), frames))
    causal = Stream(model, "x", size=SIZE, mask="causal")
    outputs = run(causal, frames)
    assert [len(done) for done in outputs] == [0] + [1] * 12
    assert np.array_equal(
        together(outputs), together(run(Stream(masked(model, "causal"), "x", size=SIZE), frames))
    )
    assert np.array_equal(together(run(Stream(model, "x", size=SIZE), frames)), own)
    with pytest.raises(ValueError, match="its warm-up is 0 frames, here 8"):
        Stream(model, "x", size=SIZE).load_state_dict(causal.state_dict())
    with pytest.raises(UsageError, match="mask='bidirectional': expected causal or warmup_causal"):
        Stream(model, "x", size=SIZE, mask="bidirectional")


def test_a_bidirectional_model_is_refused(model):
    with pytest.raises(UsageError, match="bidirectional.*cannot be streamed"):
        Stream(masked(model, "bidirectional"), "x", size=SIZE)


def test_state_of_other_steps_is_refused(model):
    state = Stream(model, "x", size=SIZE, steps=(20, 30)).state_dict()
    with pytest.raises(ValueError, match="timesteps"):
        Stream(model, "x", size=SIZE, steps=(30, 40)).load_state_dict(state)


def test_the_caller_may_fill_one_array_again_and_again(model):
    frames, buffer = video(14), np.empty((SIZE[1], SIZE[0], 3), np.uint8)
    stream, done = Stream(model, "x", size=SIZE), []
    for frame in frames:
        buffer[:] = frame
        done += stream.push(buffer)
    assert np.array_equal([*done, *stream.flush()], together(run(Stream(model, "x", size=SIZE), frames)))


def test_a_view_that_runs_backwards_is_a_frame(model):
    frames = video(12)
    mirrored = [np.ascontiguousarray(frame[:, ::-1]) for frame in frames]
    expected = together(run(Stream(model, "x", size=SIZE), mirrored))
    got = together(run(Stream(model, "x", size=SIZE), [frame[:, ::-1] for frame in frames]))
    assert np.array_equal(got, expected)
