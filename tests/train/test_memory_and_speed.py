"""Gradient checkpointing, compilation and mixed precision change what a step costs, not what it learns."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from live2diff.interop.export import export
from live2diff.model.build import as_trained, build
from live2diff.runs import checkpoints
from tests.model.tiny import randomise
from tests.train.runs import FAST, module_and_clips, run, take
from tests.train.shards import make_dataset
from train.module import OPTIMISERS, Diffusion
from train.settings import load_config
from train.validation_video import Videos

# A UNet with all kinds of layers the large one has, each once: compiling it takes seconds, not minutes.
SMALL = [
    "model.unet.config.block_out_channels=[8]",
    "model.unet.config.norm_num_groups=4",
    "model.unet.config.num_attention_heads=2",
    "model.unet.config.motion_num_attention_heads=2",
    "+model.unet.config.down_block_types=[CrossAttnDownBlockMotion]",
    "+model.unet.config.up_block_types=[CrossAttnUpBlockMotion]",
]
LORA = "trainer.lora={rank: 2, alpha: 2}"
TOLERANCE = 2e-5  # of a gradient's largest value, float32


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=2, clips_per_shard=2)


@pytest.fixture
def quick_compile(monkeypatch):
    """torch.compile without the C++ compiler: graphs are captured and run as they are."""

    def use(backend: str) -> None:
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))

    return use


@pytest.fixture
def nothing_compiled():
    """What another test compiled does not count, and is not taken for this one's."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def assert_one_graph() -> None:
    """Else what was not compiled is compared with itself."""
    seen = torch._dynamo.utils.counters
    assert seen["stats"]["unique_graphs"] == 1 and not seen["graph_break"]


def gradients(dataset, *overrides: str) -> tuple[float, dict[str, torch.Tensor]]:
    config = load_config([*FAST, *SMALL, f"data.path={dataset}", "trainer.depth=true", *overrides])
    module = Diffusion(as_trained(build(config["model"], 0), config), config["trainer"], config["optim"])
    randomise(module.unet)
    module.unet.train()  # what validates is not compiled
    _, clips = module_and_clips(dataset)
    loss = module.loss(take(clips, 2))
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in module.unet.named_parameters() if p.grad is not None}


def assert_equal(one, other) -> None:
    assert one[0] == pytest.approx(other[0], rel=1e-5)
    assert one[1].keys() == other[1].keys() and len(one[1]) > 10
    for name, gradient in one[1].items():
        assert (gradient - other[1][name]).abs().max() <= TOLERANCE * gradient.abs().max() + 1e-9, name


@pytest.mark.parametrize("trained", [["trainer.trainable=[all]"], [LORA]])
def test_gradient_checkpointing_gives_equal_gradients(dataset, trained):
    plain = gradients(dataset, *trained)
    assert_equal(plain, gradients(dataset, *trained, "trainer.gradient_checkpointing=true"))


def test_gradient_checkpointing_computes_the_forward_twice(dataset, monkeypatch):
    """Else the test above compares a switch that does nothing. Our motion modules are covered as well."""
    from live2diff.model.temporal import TemporalBlock

    calls = []
    forward = TemporalBlock.forward
    monkeypatch.setattr(TemporalBlock, "forward", lambda *args: calls.append(1) or forward(*args))
    gradients(dataset, "trainer.trainable=[all]")
    once = len(calls)
    gradients(dataset, "trainer.trainable=[all]", "trainer.gradient_checkpointing=true")
    assert len(calls) - once == 2 * once


def test_a_compiled_step_gives_equal_gradients(dataset, quick_compile, nothing_compiled):
    """Checkpointed and compiled, which is how a large model is trained, against neither."""
    quick_compile("aot_eager")
    both = ["trainer.compile=true", "trainer.gradient_checkpointing=true"]
    trained = "trainer.trainable=[motion,depth]"
    compiled = gradients(dataset, trained, *both)
    assert_one_graph()
    assert_equal(gradients(dataset, trained), compiled)


@pytest.mark.slow  # the C++ compiler takes minutes
@pytest.mark.parametrize("frames", [16, 24])
def test_inductor_gives_equal_gradients(dataset, frames, nothing_compiled):
    both = ["trainer.compile=true", "trainer.gradient_checkpointing=true"]
    more = ["trainer.trainable=[all]", f"data.frames={frames}"]
    compiled = gradients(dataset, *more, *both)
    assert_one_graph()
    assert_equal(gradients(dataset, *more), compiled)


def test_a_compiled_run_is_saved_resumed_and_exported(dataset, tmp_path, quick_compile, nothing_compiled):
    """Same names, same files; resumed without compilation, the same updates."""
    quick_compile("eager")
    words = [*SMALL, "trainer.save_every=1", "trainer.batch=1"]
    run(dataset, tmp_path / "both", "trainer.updates=1", "trainer.compile=true", *words)
    assert export(tmp_path / "both", tmp_path / "export")["certified"]
    run(dataset, tmp_path / "both", "trainer.updates=2", *words)
    run(dataset, tmp_path / "plain", "trainer.updates=2", *words)
    first, second = (
        load_file(checkpoints(tmp_path / n)[-1] / "weights.safetensors") for n in ("both", "plain")
    )
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.allclose(tensor, second[name], atol=1e-5), name


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_the_fused_optimiser_makes_the_plain_ones_updates(dataset, kind):
    words = [*FAST, *SMALL, f"data.path={dataset}", f"optim.kind={kind}", "optim.weight_decay=0.1"]
    config = load_config(words)
    module = Diffusion(as_trained(build(config["model"], 0), config), config["trainer"], config["optim"])
    fused = module.configure_optimizers()
    trained = fused.param_groups[0]["params"]
    copies = [parameter.detach().clone().requires_grad_() for parameter in trained]
    chosen = {name: config["optim"][name] for name in ("lr", "weight_decay", "betas")}
    plain = OPTIMISERS[kind](copies, **chosen)
    assert fused.defaults["fused"] and not plain.defaults["fused"]
    torch.manual_seed(0)
    for _ in range(5):
        for one, other in zip(trained, copies, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        fused.step()
        plain.step()
    for one, other in zip(trained, copies, strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-8)
        for name in ("exp_avg", "exp_avg_sq"):
            assert torch.allclose(fused.state[one][name], plain.state[other][name], rtol=1e-5, atol=1e-8), (
                name
            )


def test_gradients_are_clipped_to_a_norm_and_keep_their_direction(dataset):
    module, clips = module_and_clips(dataset)
    module.loss(take(clips, 2)).backward()
    trained = [parameter for parameter in module.unet.parameters() if parameter.requires_grad]
    before = torch.cat([parameter.grad.flatten() for parameter in trained])
    optimiser = module.configure_optimizers()
    for limit, factor in ((None, 1.0), (2 * float(before.norm()), 1.0), (0.5 * float(before.norm()), 0.5)):
        module.configure_gradient_clipping(optimiser, limit)
        after = torch.cat([parameter.grad.flatten() for parameter in trained])
        assert torch.allclose(after, factor * before, rtol=1e-4), limit


@pytest.mark.parametrize("trained", ["trainer.trainable=[motion,depth]", LORA])
def test_under_mixed_precision_what_is_trained_stays_in_float32(dataset, tmp_path, trained):
    """Weights, optimiser state and running mean; bfloat16 weights would not move by 1e-4 of their size."""
    folder = tmp_path / "run"
    words = [
        "trainer.precision=bf16-mixed",
        "trainer.ema=0.9",
        "trainer.clip_grad=1",  # which Lightning refuses where an optimiser is fused
        "trainer.updates=1",
        "trainer.batch=1",
        "optim.lr=1e-6",
    ]
    run(dataset, folder, *words, "trainer.depth=true", trained)
    last = checkpoints(folder)[-1]
    for name in ("weights", "ema"):
        state = load_file(last / f"{name}.safetensors")
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    optimiser = torch.load(last / "trainer.pt", weights_only=True)["optimizer_states"][0]["state"]
    tensors = [t for state in optimiser.values() for t in state.values() if isinstance(t, torch.Tensor)]
    assert len(tensors) > 10 and {tensor.dtype for tensor in tensors} == {torch.float32}
    config = load_config([*FAST, f"data.path={dataset}", "trainer.depth=true", trained])
    start = as_trained(build(config["model"], config["seed"]), config).unet.state_dict()
    state = load_file(last / "weights.safetensors")
    moved = {name: (tensor - start[name]).abs().max() for name, tensor in state.items()}
    largest = max(moved.values())
    assert 0 < largest < 1e-5  # steps that bfloat16 could not hold
    some = max(moved, key=lambda name: float(moved[name]))
    assert not torch.equal(state[some], state[some].bfloat16().float())


@pytest.mark.parametrize("checkpointing", ["true", "false"])
@pytest.mark.parametrize("trained", ["trainer.trainable=[motion,depth]", LORA])
def test_what_is_frozen_is_narrow_in_a_step_and_changes_no_bit(dataset, trained, checkpointing):
    words = [*FAST, "trainer.depth=true", "trainer.precision=bf16-mixed", trained, f"data.path={dataset}"]
    config = load_config([*words, f"trainer.gradient_checkpointing={checkpointing}"])
    module = Diffusion(as_trained(build(config["model"], 0), config), config["trainer"], config["optim"])
    randomise(module.unet)
    module.unet.train()
    whole = {name: p.data.clone() for name, p in module.unet.named_parameters()}
    batch = take(module_and_clips(dataset)[1], 2)

    def result() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        with torch.autocast("cpu", torch.bfloat16):
            loss = module.loss(batch)
        loss.backward()
        found = {n: p.grad for n, p in module.unet.named_parameters() if p.grad is not None}
        module.unet.zero_grad()
        return loss.detach(), found

    loss, gradients = result()
    module.on_train_batch_start(batch, 0)
    types = {name: parameter.dtype for name, parameter in module.unet.named_parameters()}
    narrow = {name for name, dtype in types.items() if dtype == torch.bfloat16}
    assert "up_blocks.3.resnets.0.conv1.weight" in narrow and "conv_in.bias" in narrow
    assert not any(module.unet.get_parameter(name).requires_grad for name in narrow)
    assert not any("norm" in name for name in narrow)
    again, same = result()
    assert torch.equal(again, loss) and len(same) > 10 and same.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, same[name]), name
    with module.frozen.whole():
        assert all(torch.equal(p, whole[name]) for name, p in module.unet.named_parameters())
    assert {n for n, p in module.unet.named_parameters() if p.dtype == torch.bfloat16} == narrow
    module.on_train_end()
    assert all(torch.equal(p, whole[name]) for name, p in module.unet.named_parameters())


def test_a_validation_finds_all_weights_whole(dataset, tmp_path, monkeypatch):
    """Its stream computes in float32. In between, and in full precision, they are what they should be."""
    seen = {"validation": set(), "step": set()}
    videos, step = Videos.render, Diffusion.training_step
    kinds = lambda unet: {parameter.dtype for parameter in unet.parameters()}  # noqa: E731
    monkeypatch.setattr(
        Videos,
        "render",
        lambda *args: seen["validation"].add(frozenset(kinds(args[2].unet))) or videos(*args),
    )
    monkeypatch.setattr(
        Diffusion,
        "training_step",
        lambda self, *args: seen["step"].add(frozenset(kinds(self.unet))) or step(self, *args),
    )
    full, half = torch.float32, torch.bfloat16
    words = ["validation=default", "validation.every=1", "validation.split=train", "validation.clips=1"]
    words += ["validation.video_frames=10", "trainer.updates=2", "trainer.batch=1"]
    for precision, kinds_in_steps in (("bf16-mixed", {full, half}), ("32-true", {full})):
        seen["validation"].clear(), seen["step"].clear()
        run(dataset, tmp_path / precision, f"trainer.precision={precision}", *words)
        assert seen == {"validation": {frozenset({full})}, "step": {frozenset(kinds_in_steps)}}


def test_mixed_precision_computes_in_bfloat16(dataset):
    module, clips = module_and_clips(dataset)
    seen = []
    for name in ("down_blocks.0.motion_modules.0.proj_in", "up_blocks.3.resnets.0.conv1"):
        module.unet.get_submodule(name).register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        loss = module.loss(take(clips, 1))
    assert seen == [torch.bfloat16] * 2 and loss.dtype == torch.float32
