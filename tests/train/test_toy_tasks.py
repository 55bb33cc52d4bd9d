"""The tasks that make the toy world's downloads: exact resume, and a model at the end in any case."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file

from live2diff.interop.animatediff import is_spatial
from live2diff.model.build import build, load_model
from live2diff.model.video_model import VideoModel
from live2diff.runs import checkpoints
from live2diff.weights import weights_hash
from train.run import train
from train.settings import load_config
from train.toy_image import image_half
from train.toy_tasks import TASKS


@pytest.fixture(autouse=True)
def small_pools(monkeypatch):
    for name in ("toy_vae", "toy_depth", "toy_image"):
        monkeypatch.setattr(f"train.{name}._POOL", 4)


def run(task, folder, updates=2, *more):
    settings = [f"experiment={task}", "trainer.batch=2", "trainer.save_every=2", "trainer.log_every=1"]
    return train([*settings, f"run_dir={folder}", f"trainer.updates={updates}", *more])


@pytest.fixture
def vae(tmp_path):
    run("toy_vae", tmp_path / "toy_vae")
    return tmp_path / "toy_vae"


def test_resume_is_exact(tmp_path):
    # A learning rate that knows the run's length: only a kill, not another length, may come between.
    folder = tmp_path / "run"
    run("toy_vae", folder, 4)
    last = checkpoints(folder)[-1]
    whole = load_file(last / "weights.safetensors")
    shutil.rmtree(last)
    shutil.rmtree(folder / "model")
    run("toy_vae", folder, 4)
    again = load_file(last / "weights.safetensors")
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name


def test_a_run_killed_before_its_model_was_written_writes_it(vae, capsys):
    model = VideoModel.load(vae / "model")
    assert model.provenance["toy_vae"]["updates"] == 2
    assert model.settings.vae_scaling != 1.0
    shutil.rmtree(vae / "model")
    run("toy_vae", vae)
    assert (vae / "model/vae").is_dir()
    assert f"next: live2diff train experiment=toy_image model.saved={vae}" in capsys.readouterr().out


@pytest.mark.slow
def test_pictures_then_styles(vae, tmp_path):
    """Each task changes what it is for, and the motion modules stay silent."""
    base, style = tmp_path / "toy_image", tmp_path / "toy_cartoon"
    run("toy_image", base, 2, f"model.saved={vae}")
    run("toy_cartoon", style, 2, f"model.saved={base}")
    models = [load_model(folder) for folder in (vae, base, style)]
    texts = [model.text.model.state_dict() for model in models[1:]]
    assert all(torch.equal(texts[0][name], texts[1][name]) for name in texts[0])
    assert models[2].text.settings.max_length == 32 and len(models[2].text.tokenizer) < 1000
    for before, after in zip(models, models[1:], strict=False):
        old, new = before.unet.state_dict(), after.unet.state_dict()
        changed = {name for name in old if not torch.equal(old[name], new[name])}
        assert changed and all(is_spatial(name) or "proj_out" in name for name in changed)
    # Motion that adds nothing: frames of a clip do not know of each other.
    clips = torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    states = models[2].text(["a cartoon of a red star"])
    with torch.no_grad():
        together = models[2].unet(clips, 500, states, mask="bidirectional")
        alone = image_half(models[2].unet)(clips[0].transpose(0, 1), 500, states.expand(3, -1, -1)).sample
    assert torch.allclose(together[0].transpose(0, 1), alone, atol=1e-5)


@pytest.mark.slow
def test_the_same_command_gives_the_same_weights(vae, tmp_path):
    models = []
    for name in ("one", "two"):
        run("toy_image", tmp_path / name, 2, f"model.saved={vae}")
        models.append(load_model(tmp_path / name))
    for part in (lambda m: m.unet, lambda m: m.text.model):
        assert weights_hash(part(models[0])) == weights_hash(part(models[1]))


def test_the_image_half_shares_its_parameters():
    unet = build(load_config(["experiment=toy_vae"])["model"]).unet
    image = image_half(unet)
    own = dict(unet.named_parameters())
    assert all(parameter is own[name] for name, parameter in image.named_parameters())
    assert {name for name in own if is_spatial(name)} == dict(image.named_parameters()).keys()


def test_depth(tmp_path):
    run("toy_depth", tmp_path / "depth")
    fresh, trained = build(load_config(["experiment=toy_depth"])["model"]), load_model(tmp_path / "depth")
    assert not torch.equal(
        fresh.depth.state_dict()["scratch.output_conv.0.weight"],
        trained.depth.state_dict()["scratch.output_conv.0.weight"],
    )
    assert torch.equal(fresh.unet.conv_in.weight, trained.unet.conv_in.weight)


def test_every_task_has_an_experiment():
    for task in TASKS:
        assert load_config([f"experiment={task}"])["trainer"]["task"] == task
