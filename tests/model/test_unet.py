"""Masks, causality, the depth branch, gradients, and compatibility with diffusers."""

from __future__ import annotations

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

from live2diff.model import masks
from live2diff.model.depth_branch import DepthBranch
from live2diff.model.unet import CausalUNet
from tests.model.tiny import TINY, make_inputs, make_unet, randomise, whole


def test_warm_up_mask_by_hand():
    """Window 4, warm-up 2: frames 0, 1 see each other; later ones those, themselves and one before."""
    expected = ["110000", "110000", "111000", "111100", "110110", "110011"]
    got = masks.visible("warmup_causal", 6, window=4, warmup=2)
    assert ["".join(str(int(x)) for x in row) for row in got] == expected


def test_causal_mask_by_hand():
    expected = ["1000", "1100", "1110", "0111"]
    got = masks.visible("causal", 4, window=3, warmup=1)
    assert ["".join(str(int(x)) for x in row) for row in got] == expected


def test_positions_shift_after_eviction():
    position = masks.positions(masks.visible("warmup_causal", 6, window=4, warmup=2))
    assert position[5, [0, 1, 4, 5]].tolist() == [0, 1, 2, 3]
    assert position[3, :4].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("frames", [16, 24])
@pytest.mark.parametrize("mask", ["warmup_causal", "causal"])
def test_no_frame_sees_the_future(mask, frames):
    """Changing frame k changes nothing before k, exactly; within the warm-up all frames may change."""
    unet = make_unet()
    samples, depths, timesteps, text = make_inputs(1, frames)
    before = whole(unet, samples, depths, timesteps, text, mask)
    for k in (3, 8, 12, frames - 1):
        for changed in (samples, depths):
            original = changed.clone()
            changed[:, :, k] += 1.0
            after = whole(unet, samples, depths, timesteps, text, mask)
            changed.copy_(original)
            first = 0 if mask == "warmup_causal" and k < 8 else k
            assert torch.equal(after[:, :, :first], before[:, :, :first])
            assert not torch.equal(after[:, :, k], before[:, :, k])


def test_bidirectional_sees_the_future():
    unet = make_unet()
    samples, depths, timesteps, text = make_inputs(1, 16)
    before = whole(unet, samples, depths, timesteps, text, "bidirectional")
    samples[:, :, 15] += 1
    after = whole(unet, samples, depths, timesteps, text, "bidirectional")
    assert (after[:, :, 0] - before[:, :, 0]).abs().amax() > 1e-4


def test_more_frames_than_encodings_is_refused():
    unet = make_unet()
    samples, depths, timesteps, text = make_inputs(1, 25)
    with pytest.raises(ValueError, match="bidirectional.*25"):
        unet(samples, timesteps, text, depths, "bidirectional")


def test_equals_diffusers_where_both_mean_the_same():
    """One frame under any mask: the stock model's 5-D group norm is then per frame too."""
    stock = UNetMotionModel(**TINY, motion_max_seq_length=24, use_motion_mid_block=False)
    randomise(stock)
    ours = CausalUNet(**TINY, depth_channels=None)
    assert set(ours.state_dict()) == set(stock.state_dict())
    ours.load_state_dict(stock.state_dict())
    samples, _, timesteps, text = make_inputs(1, 1)
    with torch.no_grad():
        assert (ours(samples, timesteps, text) - stock(samples, timesteps, text).sample).abs().amax() < 1e-5


def test_loads_through_diffusers():
    """`from_unet2d` with a `MotionAdapter`, then save and load: diffusers' own ways in and out."""
    sizes = {k: v for k, v in TINY.items() if k != "motion_num_attention_heads"}
    del sizes["num_attention_heads"]
    base = UNet2DConditionModel(**sizes, attention_head_dim=4)
    adapter = MotionAdapter(
        block_out_channels=TINY["block_out_channels"],
        motion_layers_per_block=1,
        motion_norm_num_groups=8,
        motion_num_attention_heads=4,
        motion_max_seq_length=24,
        use_motion_mid_block=False,
    )
    unet = CausalUNet.from_unet2d(base, adapter)
    state = unet.state_dict()
    assert torch.equal(state["conv_in.weight"], base.conv_in.weight)
    for name, tensor in adapter.state_dict().items():
        assert torch.equal(state[name], tensor), name
    assert unet.config.window == 16


def test_save_and_load_is_bit_identical(tmp_path):
    unet = make_unet(window=8, warmup=4)
    unet.save_pretrained(tmp_path)
    again = CausalUNet.from_pretrained(tmp_path)
    assert (again.window, again.warmup) == (8, 4)
    inputs = make_inputs(1, 10)
    assert torch.equal(whole(unet, *inputs), whole(again.eval(), *inputs))


def test_depth_branch_starts_as_nothing():
    unet = CausalUNet(**TINY)
    samples, depths, timesteps, text = make_inputs(1, 16)
    with torch.no_grad():
        assert torch.equal(unet(samples, timesteps, text, depths), unet(samples, timesteps, text))


def test_the_depth_branch_hears_depth_from_the_start():
    """What its last layer gets varies with the input as the input does, within a factor of ten."""
    torch.manual_seed(0)
    branch, heard = DepthBranch(4, 8), []
    branch.conv_out.register_forward_hook(lambda _, given, __: heard.append(given[0]))
    branch(torch.randn(2, 4, 16, 16))
    assert 0.1 < heard[0].std(dim=(0, 2, 3)).mean() < 10


def test_depth_without_a_branch_is_refused():
    samples, depths, timesteps, text = make_inputs(1, 8)
    with pytest.raises(ValueError, match="no depth branch"):
        make_unet(depth_channels=None)(samples, timesteps, text, depths)


@pytest.mark.parametrize("mask", ["warmup_causal", "causal"])
def test_gradient_checkpointing_changes_no_gradient(mask):
    samples, depths, timesteps, text = make_inputs(2, 10)
    gradients = []
    for checkpointing in (False, True):
        unet = make_unet(window=8, warmup=4).train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
            assert all(module.gradient_checkpointing for module, _ in unet.temporal)
        unet(samples, timesteps, text, depths, mask).square().mean().backward()
        gradients.append({name: p.grad for name, p in unet.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None and torch.equal(gradient, gradients[1][name]), name


def test_gradient_checkpointing_saves_memory_in_the_motion_modules():
    """Fewer bytes are kept for the backward pass than with diffusers' checkpointing alone."""

    def kept(checkpoint_motion: bool) -> int:
        unet = make_unet().train()
        unet.enable_gradient_checkpointing()
        for module, _ in unet.temporal:
            module.gradient_checkpointing = checkpoint_motion
        total = 0

        def pack(tensor):
            nonlocal total
            total += tensor.nbytes
            return tensor

        samples, depths, timesteps, text = make_inputs(1, 16)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            unet(samples, timesteps, text, depths)
        return total

    assert kept(True) < 0.7 * kept(False)


@pytest.mark.parametrize(("window", "warmup"), [(8, 8), (8, -1), (40, 8)])
def test_impossible_windows_are_refused(window, warmup):
    with pytest.raises(ValueError, match="window"):
        CausalUNet(**TINY, window=window, warmup=warmup)


def test_official_sizes():
    """FACTS of the public release at SD1.5 size: parameter counts, counted without allocating them."""
    with torch.device("meta"):
        unet = CausalUNet()
    count = {"motion": 0, "depth": 0, "spatial": 0}
    for name, parameter in unet.named_parameters():
        kind = "motion" if "motion_modules" in name else "depth" if "depth_branch" in name else "spatial"
        count[kind] += parameter.numel()
    assert count == {"spatial": 859_520_964, "motion": 417_137_600, "depth": 1_086_624}
    with torch.device("meta"):
        memory = unet.new_memory(1, 64, 64, dtype=torch.float16)
    assert len(memory.keys) == 40
    assert round(memory.nbytes / 1e9, 2) == 1.52  # per denoising row at 512 x 512
