"""Clips longer than the window train what the stream computes after frames have been evicted."""

from __future__ import annotations

import pytest
import torch

from live2diff.errors import UsageError
from live2diff.model import masks
from live2diff.model.attention import ClipView
from live2diff.model.build import as_trained, build
from tests.model.tiny import make_unet, randomise, stream
from tests.train.runs import FAST, module_and_clips, run, take
from tests.train.shards import make_dataset
from train.settings import load_config

WINDOW, WARMUP = 16, 8


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=1, clips_per_shard=2)


@pytest.mark.parametrize(("frames", "mask"), [(24, "warmup_causal"), (40, "warmup_causal"), (24, "causal")])
def test_the_training_forward_is_the_stream(dataset, frames, mask):
    """What the module feeds its UNet and what comes out, against the same clip frame by frame."""
    words = ["trainer.depth=true", "trainer.trainable=[motion,depth]", f"trainer.mask={mask}"]
    module, clips = module_and_clips(dataset, f"data.frames={frames}", *words)
    randomise(module.unet)
    seen = []
    module.unet.register_forward_hook(lambda _, args, out: seen.append((*args, out.detach())))
    module.loss(take(clips, 1)).backward()
    noisy, timestep, text, depth, used, predicted = seen[0]
    assert used == mask and noisy.shape[2] == frames > module.unet.window
    for name, parameter in module.unet.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and 0 < parameter.grad.norm() < float("inf"), name
    if mask == "causal":  # it streams without a warm-up
        module.unet.set_window(WINDOW, 0)
    streamed = stream(module.unet, noisy, depth, timestep, text)
    assert (streamed - predicted).abs().max() < 1e-5


@pytest.mark.parametrize("mask", ["warmup_causal", "causal"])
def test_gradients_of_windowed_attention_are_those_of_its_definition(mask):
    """Attention written out: every query has its own encodings, by the rank of a key among those it sees."""
    torch.manual_seed(0)
    unet, frames = make_unet(), 24
    module = unet.temporal[0][0].transformer_blocks[0]
    attn, pe = module.attn1, module.pos_embed.pe[0]
    x = torch.randn(3, frames, pe.shape[1], requires_grad=True)
    seen = masks.visible(mask, frames, WINDOW, WARMUP)
    view = ClipView(seen, masks.positions(seen))
    assert not view.absolute
    parameters = [x, attn.to_q.weight, attn.to_k.weight, attn.to_v.weight, attn.to_out[0].weight]

    def written_out() -> torch.Tensor:
        rows = []
        for query in range(frames):
            keys = seen[query].nonzero()[:, 0]
            placed = x[:, keys] + pe[: len(keys)]
            own = x[:, query] + pe[int((keys == query).nonzero())]
            heads = [
                t.unflatten(-1, (attn.heads, -1))
                for t in (attn.to_q(own), attn.to_k(placed), attn.to_v(placed))
            ]
            weight = (torch.einsum("phd,pkhd->phk", *heads[:2]) * attn.scale).softmax(-1)
            rows.append(torch.einsum("phk,pkhd->phd", weight, heads[2]).flatten(1))
        return attn.to_out[0](torch.stack(rows, dim=1))

    outputs = view.attend(attn, x, pe, 0), written_out()
    assert torch.allclose(*outputs, atol=1e-5)
    target = torch.randn(outputs[0].shape)
    ours, theirs = (torch.autograd.grad((out * target).sum(), parameters) for out in outputs)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-4 * float(other.abs().max()))


def test_a_loss_on_late_frames_reaches_the_warm_up_and_nothing_later(dataset):
    """Frame 30 learns from the warm-up frames, its recent ones and, through deep layers, evicted ones."""
    unet = make_unet()
    sample = torch.randn(1, 4, 40, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    out = unet(sample, 500, torch.zeros(1, 7, 32))
    (gradient,) = torch.autograd.grad(out[:, :, 30].square().sum(), sample)
    reach = gradient.abs().amax(dim=(0, 1, 3, 4))
    assert (reach[:31] > 0).all() and (reach[31:] == 0).all()


def test_a_run_on_long_clips(dataset, tmp_path):
    assert run(dataset, tmp_path / "run", "data.frames=24", "trainer.updates=1", "trainer.batch=1") == 0


def test_more_frames_than_encodings_are_refused(dataset):
    """Under the bidirectional mask every frame needs an encoding of its own; a saved model knows how many."""
    config = load_config([*FAST, f"data.path={dataset}", "data.frames=24", "trainer.mask=bidirectional"])
    model = as_trained(build(config["model"], 0), config)
    assert model.settings.mask == "bidirectional"
    config["data"]["frames"] = 25
    with pytest.raises(
        UsageError, match="data.frames=25: expected 24 or fewer with trainer.mask=bidirectional"
    ):
        as_trained(model, config)
