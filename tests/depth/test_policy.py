"""The depth normalisation policy: one function in training and streaming, causal, finite, within [-1, 1]."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load, save

from live2diff.depth import DepthPolicy, depth_image
from live2diff.errors import UsageError

WARMUP = 4
POLICIES = [
    DepthPolicy("frame"),
    DepthPolicy("clip"),
    DepthPolicy("running"),
    DepthPolicy("running", momentum=0.3),
]
each_policy = pytest.mark.parametrize("policy", POLICIES, ids=lambda p: f"{p.kind}-{p.momentum}")


def raw_clip(frames: int = 10, streams: int = 2) -> torch.Tensor:
    """Raw depth whose range wanders from frame to frame, as a network's does."""
    depth = torch.rand(streams, frames, 6, 8)
    return depth * (100 + 900 * torch.rand(streams, frames, 1, 1)) + 500 * torch.rand(streams, frames, 1, 1)


@each_policy
def test_policy_follows_its_table(policy):
    """Against the words at the head of policy.py, frame by frame in plain Python numbers."""
    raw = raw_clip(streams=1)
    result = policy.normalise_clip(raw, WARMUP)[0]
    joint = raw[0, :WARMUP].min().item(), raw[0, :WARMUP].max().item()
    low, high = joint
    for index, frame in enumerate(raw[0]):
        own = frame.min().item(), frame.max().item()
        if policy.kind == "frame":
            low, high = own
        elif policy.kind == "running" and index >= WARMUP:
            low = policy.momentum * low + (1 - policy.momentum) * own[0]
            high = policy.momentum * high + (1 - policy.momentum) * own[1]
        expected = (2 * (frame - low) / (high - low) - 1).clamp(-1, 1)
        torch.testing.assert_close(result[index], expected, atol=1e-5, rtol=0)


@each_policy
def test_stream_equals_clip_also_across_save_and_restore(policy):
    raw = raw_clip()
    clip = policy.normalise_clip(raw, WARMUP)
    out, state = policy.warm_up(raw[:, :WARMUP])
    frames = [*out.unbind(1)]
    for index in range(WARMUP, raw.shape[1]):
        frame, state = policy.step(raw[:, index], state)
        frames.append(frame)
        if index == 6:
            state = load(save(state))
    assert torch.equal(torch.stack(frames, 1), clip)


@each_policy
def test_causal_after_the_warm_up(policy):
    raw = raw_clip()
    before = policy.normalise_clip(raw, WARMUP)
    for changed in range(WARMUP, raw.shape[1]):
        other = raw.clone()
        other[:, changed] = other[:, changed].flip(-1) * 3
        after = policy.normalise_clip(other, WARMUP)
        assert torch.equal(after[:, :changed], before[:, :changed])
        assert not torch.equal(after[:, changed], before[:, changed])


@each_policy
def test_range_and_streams_do_not_mix(policy):
    raw = raw_clip()
    result = policy.normalise_clip(raw, WARMUP)
    assert result.min() >= -1 and result.max() <= 1
    warm = result[:, :WARMUP].flatten(1)
    assert torch.equal(warm.amin(1), -torch.ones(2)), "the warm-up must use the whole range"
    assert torch.equal(warm.amax(1), torch.ones(2))
    assert torch.equal(policy.normalise_clip(raw[1:], WARMUP)[0], result[1])


@each_policy
@pytest.mark.parametrize("value", [0.0, 7.0, 3e4])
def test_constant_depth_gives_a_finite_constant(policy, value):
    result = policy.normalise_clip(torch.full((1, 8, 4, 4), value), WARMUP)
    assert torch.equal(result, torch.full_like(result, -1.0))


@each_policy
def test_half_precision_neither_overflows_nor_loses_its_type(policy):
    raw = torch.linspace(-60_000, 60_000, 8 * 16).half().view(1, 8, 4, 4)  # wider than float16
    result = policy.normalise_clip(raw, WARMUP)
    assert result.dtype == torch.float16
    torch.testing.assert_close(result.float(), policy.normalise_clip(raw.float(), WARMUP), atol=1e-3, rtol=0)


def test_momentum_spans_from_frame_to_clip():
    raw = raw_clip()
    clip, frame = (DepthPolicy(kind).normalise_clip(raw, WARMUP) for kind in ("clip", "frame"))
    held = DepthPolicy("running", momentum=1.0).normalise_clip(raw, WARMUP)
    free = DepthPolicy("running", momentum=0.0).normalise_clip(raw, WARMUP)
    assert torch.equal(held, clip)
    assert torch.equal(free[:, WARMUP:], frame[:, WARMUP:])


def test_running_range_approaches_a_new_scene_geometrically():
    policy = DepthPolicy("running", momentum=0.8)
    _, state = policy.warm_up(torch.rand(1, WARMUP, 8, 8))
    start, scene = state["high"].item(), 100 + torch.rand(1, 8, 8)
    for tick in range(1, 20):
        _, state = policy.step(scene, state)
        expected = scene.max().item() + (start - scene.max().item()) * 0.8**tick
        assert state["high"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["clip", "running"])
def test_no_jump_where_the_warm_up_ends(kind):
    """A scene that stands still keeps (`clip`) or slowly changes (`running`) its values where a joint warm-up
    followed by per-frame ranges, as in the authors' release, jumps."""
    raw = raw_clip(WARMUP)
    raw = torch.cat([raw, raw[:, -1:]], dim=1)

    def jump(policy: DepthPolicy) -> float:
        result = policy.normalise_clip(raw, WARMUP)
        return (result[:, WARMUP] - result[:, WARMUP - 1]).abs().max().item()

    official = jump(DepthPolicy("running", momentum=0.0))
    assert official > 0.2
    assert jump(DepthPolicy(kind)) < 0.25 * official
    assert jump(DepthPolicy("clip")) == 0


@each_policy
def test_step_branches_on_no_value_and_leaves_its_state_alone(policy):
    _, state = policy.warm_up(raw_clip(WARMUP))
    kept = {key: value.clone() for key, value in state.items()}
    _, after = policy.step(raw_clip(1)[:, 0], state)
    assert all(torch.equal(state[key], kept[key]) and after[key].shape == kept[key].shape for key in kept)
    # Meta tensors hold no values: reading one, as a host sync would, raises.
    _, state = policy.warm_up(raw_clip(WARMUP).to("meta"))
    out, _ = policy.step(raw_clip(1)[:, 0].to("meta"), state)
    assert out.shape == (2, 6, 8)


@each_policy
def test_policy_round_trips_through_json(policy):
    assert DepthPolicy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy
    assert DepthPolicy.from_dict({}) == DepthPolicy()


@pytest.mark.parametrize(
    "data",
    [
        {"kind": "median"},
        {"kind": ["frame"]},
        {"momentum": 1.5},
        {"momentum": float("nan")},
        {"momentum": "0.9"},
        {"momentum": True},
        {"eps": 0},
        {"eps": float("inf")},
        {"window": 3},
        {3: "frame", "kind": "frame"},
        ["frame"],
        None,
    ],
    ids=repr,
)
def test_bad_policies_are_refused_in_one_line(data):
    with pytest.raises(UsageError) as caught:
        DepthPolicy.from_dict(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("warmup", [0, -1, 11])
def test_warm_up_must_fit_the_clip(warmup):
    with pytest.raises(UsageError, match="warm-up"):
        DepthPolicy().normalise_clip(raw_clip(10), warmup)


def test_depth_image_is_grey():
    depth = torch.rand(2, 5, 6, 8) * 2 - 1
    image = depth_image(depth)
    assert image.shape == (2, 5, 3, 6, 8)
    assert all(torch.equal(image[:, :, channel], depth) for channel in range(3))
    assert depth_image(depth[0, 0]).shape == (3, 6, 8)
