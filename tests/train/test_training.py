"""The objective and the loop: what learns, what is saved, what a resumed run does."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch.utils.data import default_collate

from live2diff.config import compose
from live2diff.errors import UsageError
from live2diff.model.build import build, load_model
from live2diff.runs import checkpoints
from tests.train.shards import make_dataset
from train.data import Clips
from train.module import Diffusion
from train.run import train

FAST = ["experiment=tiny", "data.size=32", "model.settings.size=[32,32]", "trainer.log_every=1"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=2, clips_per_shard=4)


def config(dataset, *overrides):
    tree = compose("train", [*FAST, f"data.path={dataset}", *overrides])
    return OmegaConf.to_container(tree, resolve=True)


def module_and_clips(dataset, *overrides):
    c = config(dataset, *overrides)
    module = Diffusion(build(c["model"], seed=0), c["trainer"], c["optim"])
    return module, iter(Clips(c["data"], seed=0, batch=1, batches=99))


def take(clips, count):
    return default_collate([next(clips) for _ in range(count)])


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


def run(dataset, folder, *overrides):
    return train([*FAST, f"data.path={dataset}", f"run_dir={folder}", *overrides])


def losses(folder):
    with open(folder / "metrics.csv") as file:
        return [(int(row["update"]), float(row["loss"])) for row in csv.DictReader(file)]


def test_stage_one_loss_falls(dataset, tmp_path):
    """30 updates of the whole tiny UNet on toy clips."""
    run(dataset, tmp_path / "run", "trainer.updates=30", "trainer.trainable=['']", "data.caption_dropout=0")
    values = [loss for _, loss in losses(tmp_path / "run")]
    assert sum(values[-5:]) < 0.8 * sum(values[:5])


def test_a_resumed_run_equals_an_uninterrupted_one(dataset, tmp_path):
    settings = ["trainer.accumulate=2", "trainer.save_every=2"]
    run(dataset, tmp_path / "whole", "trainer.updates=4", *settings)
    run(dataset, tmp_path / "parts", "trainer.updates=2", *settings)
    run(dataset, tmp_path / "parts", "trainer.updates=4", *settings)
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
    base = [word for word in FAST if not word.startswith("model.")]
    train(
        [*base, f"data.path={dataset}", f"run_dir={two}", "trainer.updates=2", "trainer.depth=true", *stage2]
    )
    generator = torch.Generator().manual_seed(0)
    sample, depth, other = (torch.randn(1, 4, 10, 8, 8, generator=generator) for _ in range(3))
    text = torch.randn(1, 77, 32, generator=generator)
    with torch.no_grad():
        before, after = load_model(one).unet, load_model(two).unet
        assert torch.equal(before(sample, 500, text, depth), before(sample, 500, text))
        assert not torch.equal(after(sample, 500, text, depth), after(sample, 500, text))
        assert not torch.equal(after(sample, 500, text, depth), after(sample, 500, text, other))


def test_ctrl_c_saves_and_the_same_command_continues(dataset, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "train", *FAST, f"data.path={dataset}", f"run_dir={folder}"]
    command += ["trainer.updates=400", "trainer.save_every=1000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("update 2/"):
            break
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "run the same command again" in output
    done = checkpoints(folder)
    assert len(done) == 1
    updates = int(done[0].name[5:])
    start = time.monotonic()
    run(dataset, folder, f"trainer.updates={updates + 1}", "trainer.save_every=1000")
    assert checkpoints(folder)[-1].name == f"step-{updates + 1:06d}"
    assert time.monotonic() - start < 60


def test_another_configuration_does_not_continue_a_run(dataset, tmp_path):
    run(dataset, tmp_path / "run", "trainer.updates=1")
    with pytest.raises(UsageError, match=r"was run with optim.lr=0.001, now optim.lr=0.01"):
        run(dataset, tmp_path / "run", "trainer.updates=2", "optim.lr=0.01")


def test_old_checkpoints_go_only_after_newer_ones_are_complete(dataset, tmp_path):
    run(dataset, tmp_path / "run", "trainer.updates=4", "trainer.save_every=1", "trainer.keep=2")
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000003", "step-000004"]
    (tmp_path / "run/checkpoints/step-000004/trainer.pt").write_bytes(b"torn")
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-000003"]
