"""The objective and the loop: what learns, what is saved, what a resumed run does."""

from __future__ import annotations

import csv
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from live2diff.errors import DataError, UsageError
from live2diff.interop.inspect import inspect
from live2diff.model.build import load_model
from live2diff.runs import checkpoints
from tests.train.runs import SMALL, module_and_clips, run, take
from tests.train.shards import make_dataset
from train.run import train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=2, clips_per_shard=4)


@pytest.mark.parametrize(
    ("stage", "trained"),
    [
        (["trainer.trainable=[motion_modules]"], ("motion_modules",)),
        (["trainer.trainable=[motion_modules,depth_branch]", "trainer.depth=true"],
         ("motion_modules", "depth_branch")),
    ],
)  # fmt: skip
def test_only_the_named_parameters_receive_gradients(dataset, stage, trained):
    module, clips = module_and_clips(dataset, *stage)
    module.loss(take(clips, 1)).backward()
    for name, parameter in module.unet.named_parameters():
        named = any(part in name for part in trained)
        assert (parameter.grad is not None) == named, name
    for part in (module.model.vae, module.model.text, module.model.depth):
        assert all(parameter.grad is None for parameter in part.parameters())
    assert set(module.state_dict()) == {n for n, p in module.unet.named_parameters() if p.grad is not None}


def test_accumulation_equals_one_large_batch(dataset):
    gradients = []
    for size in (1, 2, 4):
        module, clips = module_and_clips(dataset, "trainer.trainable=['']", "trainer.depth=true")
        torch.nn.init.normal_(module.unet.depth_branch.conv_out.weight, std=0.1)
        torch.manual_seed(0)
        for _ in range(4 // size):
            (module.loss(take(clips, size)) * size / 4).backward()
        gradients.append({n: p.grad for n, p in module.unet.named_parameters() if "depth" not in n})
    for name, gradient in gradients[0].items():
        for other in gradients[1:]:
            assert (gradient - other[name]).abs().max() < 1e-5, name


@pytest.mark.parametrize("kind", ["l1", "mse"])
def test_loss_is_the_distance_to_the_known_noise(dataset, kind):
    """Against the formula, written out for one batch."""
    from train.noise import draw

    module, clips = module_and_clips(dataset, f"trainer.loss={kind}")
    batch = take(clips, 2)
    timestep, noise, posterior = draw(batch["seed"], (4, 16, 8, 8), 1000, torch.device("cpu"))
    clean = module.model.encode(batch["video"], posterior)
    betas = torch.linspace(0.00085, 0.012, 1000)  # linear, not SD1.5's scaled_linear
    signal = (1 - betas).cumprod(0)[timestep].view(-1, 1, 1, 1, 1)
    noisy = signal.sqrt() * clean + (1 - signal).sqrt() * noise
    with torch.no_grad():
        error = module.unet(noisy, timestep, module.model.text(batch["caption"])) - noise
        expected = error.abs().mean() if kind == "l1" else error.square().mean()
        assert torch.allclose(module.loss(batch), expected, atol=1e-6)


def test_a_pattern_that_matches_nothing_is_refused(dataset):
    with pytest.raises(UsageError, match="'motoin' is in no parameter's name"):
        module_and_clips(dataset, "trainer.trainable=[motoin]")


def losses(folder):
    with open(folder / "metrics.csv") as file:
        return [(int(row["update"]), float(row["loss"])) for row in csv.DictReader(file)]


def test_stage_one_loss_falls(dataset, tmp_path):
    """A base that has seen every frame at once, then its temporal modules alone under the warm-up mask."""
    base, stage1 = tmp_path / "base", tmp_path / "stage1"
    settings = ["data.caption_dropout=0", "data.hflip=0"]
    whole = ["trainer.trainable=['']", "trainer.mask=bidirectional"]
    run(dataset, base, "trainer.updates=20", *whole, *settings)
    values = [loss for _, loss in losses(base)]
    assert sum(values[-5:]) < 0.9 * sum(values[:5])
    saved = ["model=saved", f"model.saved={base}", f"data.path={dataset}", f"run_dir={stage1}"]
    train([*SMALL, *saved, "trainer.updates=24", *settings])
    module, clips = module_and_clips(dataset, *settings, seed=1)
    held = [take(clips, 8) for _ in range(2)]  # the same clips, crops, timesteps and noise for both
    results = []
    for folder in (base, stage1):
        module.unet.load_state_dict(load_model(folder).unet.state_dict())
        with torch.no_grad():
            results.append(sum(float(module.loss(batch)) for batch in held) / len(held))
    assert results[1] < 0.98 * results[0], results


def test_accumulating_gives_the_gradient_of_one_large_batch(dataset, tmp_path):
    """Through the trainer, by Adam's first moment, which is linear in the gradient: a wrong scale shows."""
    moments = []
    for batch, accumulate in ((1, 4), (4, 1)):
        folder = tmp_path / str(batch)
        run(
            dataset, folder, "trainer.updates=1", f"trainer.batch={batch}", f"trainer.accumulate={accumulate}"
        )
        state = torch.load(checkpoints(folder)[-1] / "trainer.pt", weights_only=True)
        moments.append([p["exp_avg"] for p in state["optimizer_states"][0]["state"].values()])
    assert len(moments[0]) > 10
    for one, other in zip(*moments, strict=True):
        assert (one - other).norm() <= 1e-3 * other.norm() + 1e-9


def test_mixed_precision_leaves_the_frozen_nets_and_the_noising_alone(dataset):
    module, clips = module_and_clips(dataset, "trainer.depth=true")
    batch, seen = take(clips, 2), []
    module.unet.register_forward_pre_hook(lambda _, args: seen.append(args))
    with torch.no_grad():
        module.loss(batch)
        with torch.autocast("cpu", torch.bfloat16):
            module.loss(batch)
    for plain, mixed in zip(*(args[:4] for args in seen), strict=True):
        assert plain.dtype == mixed.dtype and torch.equal(plain, mixed)


def test_a_worker_s_error_is_one_line(tmp_path):
    dataset = make_dataset(tmp_path, shards=1, clips_per_shard=1, damage=True)
    with pytest.raises(DataError, match=r"^\S*clips-000000.tar: clip 00\S*: ") as error:
        run(dataset, tmp_path / "run", "data.workers=1", "trainer.updates=1")
    assert "\n" not in str(error.value)


def test_a_resumed_run_equals_an_uninterrupted_one(dataset, tmp_path):
    settings = ["trainer.accumulate=2", "trainer.save_every=2"]
    run(dataset, tmp_path / "whole", "trainer.updates=4", *settings)
    run(dataset, tmp_path / "parts", "trainer.updates=2", *settings)
    run(dataset, tmp_path / "parts", "trainer.updates=4", "data.workers=2", *settings)
    whole, parts = (checkpoints(tmp_path / name)[-1] for name in ("whole", "parts"))
    assert whole.name == parts.name == "step-000004"
    first, second = (load_file(path / "weights.safetensors") for path in (whole, parts))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_stages_build_on_each_other(dataset, tmp_path):
    """Stage 1, then stage 2 from it: the depth branch starts as nothing and then matters."""
    one, two = tmp_path / "one", tmp_path / "two"
    run(dataset, one, "trainer.updates=1")
    stage2 = ["model=saved", f"model.saved={one}", "trainer.trainable=[motion_modules,depth_branch]"]
    train(
        [*SMALL, f"data.path={dataset}", f"run_dir={two}", "trainer.updates=2", "trainer.depth=true", *stage2]
    )
    generator = torch.Generator().manual_seed(0)
    sample, depth, other = (torch.randn(1, 4, 10, 8, 8, generator=generator) for _ in range(3))
    text = torch.randn(1, 77, 32, generator=generator)
    with torch.no_grad():
        before, after = load_model(one).unet, load_model(two).unet
        assert torch.equal(before(sample, 500, text, depth), before(sample, 500, text))
        assert not torch.equal(after(sample, 500, text, depth), after(sample, 500, text))
        assert not torch.equal(after(sample, 500, text, depth), after(sample, 500, text, other))


def test_another_configuration_does_not_continue_a_run(dataset, tmp_path):
    run(dataset, tmp_path / "run", "trainer.updates=1")
    with pytest.raises(UsageError, match=r"was run with optim.lr=0.001, now optim.lr=0.01"):
        run(dataset, tmp_path / "run", "trainer.updates=2", "optim.lr=0.01")
    with pytest.raises(UsageError, match=r"was run with data.shuffle=16, now data.shuffle=1"):
        run(dataset, tmp_path / "run", "trainer.updates=2", "data.shuffle=1")


def test_other_clips_do_not_continue_a_run(dataset, tmp_path):
    """The place of a sample follows from what the dataset holds."""
    copy = tmp_path / "dataset"
    shutil.copytree(dataset, copy)
    run(copy, tmp_path / "run", "trainer.updates=1")
    manifest = json.loads((copy / "dataset.json").read_text())
    manifest["splits"]["train"]["shards"].pop()
    (copy / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="its clips are not those this run began with"):
        run(copy, tmp_path / "run", "trainer.updates=2")


def test_old_checkpoints_go_only_after_newer_ones_are_complete(dataset, tmp_path):
    run(dataset, tmp_path / "run", "trainer.updates=4", "trainer.save_every=1", "trainer.keep=2")
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000003", "step-000004"]
    (tmp_path / "run/checkpoints/step-000004/trainer.pt").write_bytes(b"torn")
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000003"]


def test_a_base_that_trains_on_does_not_change_a_run_built_on_it(dataset, tmp_path):
    base, top = tmp_path / "base", tmp_path / "top"
    run(dataset, base, "trainer.updates=1")
    words = [*SMALL, f"data.path={dataset}", f"run_dir={top}", "model=saved", f"model.saved={base}"]
    train([*words, "trainer.updates=1"])
    before = load_model(top).unet.state_dict()
    run(dataset, base, "trainer.updates=4", "trainer.save_every=1")
    assert [path.name[-1] for path in checkpoints(base)] == ["1", "3", "4"]  # two are kept, and that one
    assert inspect(base)[0] == f"{base}: a training run with 3 complete checkpoints"
    for name, tensor in load_model(top).unet.state_dict().items():  # what an export reads
        assert torch.equal(tensor, before[name]), name
    assert train([*words, "trainer.updates=2"]) == 0  # the same command still continues


def test_an_exported_model_says_what_it_was_trained_for(dataset, tmp_path):
    run(dataset, tmp_path / "run", "trainer.updates=1", "trainer.mask=causal")
    settings = load_model(tmp_path / "run").settings
    assert (settings.mask, settings.uses_depth, settings.size) == ("causal", False, (32, 32))
