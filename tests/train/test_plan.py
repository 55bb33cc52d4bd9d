"""`live2diff train --dry-run`: every shipped experiment has a plan with the right numbers."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import pytest
import torch
from omegaconf import OmegaConf
from torch.profiler import profile

from live2diff.cli import main
from live2diff.config import options
from live2diff.model.build import as_trained, build
from live2diff.model.outline import outline, parameters_of
from live2diff.runs import checkpoints
from tests.conftest import ROOT
from tests.train.runs import FAST, module_and_clips, run, take
from tests.train.shards import make_dataset
from train import memory, plan
from train.columns import Parts
from train.memory import estimate
from train.settings import load_config
from train.toy_tasks import TASKS
from train.trainable import choose_trainable

MOTION, DEPTH, IMAGE = 417_137_600, 1_086_624, 859_520_964  # of the official model at SD1.5's size
TRAINED = {
    **dict.fromkeys(("stage1_mask", "paper_stage1", "pia", "warmup4", "single_gpu_24gb"), MOTION),
    **dict.fromkeys(("ablation_a", "ablation_b", "ablation_c"), MOTION),
    "stage2_depth": MOTION + DEPTH,
    **dict.fromkeys(("paper_stage2", "ablation_d"), MOTION + DEPTH + IMAGE),
}
BUILT_ON = {  # experiment -> what its base's run was
    "stage2_depth": "stage1_mask",
    "paper_stage2": "paper_stage1",
    "ablation_d": "ablation_c",
    "toy_image": "toy_vae",
    "toy_cartoon": "toy_image",
    "toy_drawing": "toy_image",
    "toy_motion": "toy_image",
    "toy_stage2": "toy_stage1",
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=2, clips_per_shard=2)


def pretend_run(folder, experiment):
    """A run that has a checkpoint, as far as the sizes of its model go; and so has what it is built on."""
    config = load_config([f"experiment={experiment}", "data.path=x"][: 1 if experiment in TASKS else 2])
    if experiment in BUILT_ON:
        pretend_run(folder, BUILT_ON[experiment])
    place = folder / config["run_dir"]
    (place / "checkpoints/step-000001").mkdir(parents=True)
    (place / "checkpoints/step-000001/manifest.json").write_text(json.dumps({"updates": 1, "files": {}}))
    OmegaConf.save(OmegaConf.create(config), place / "config.yaml")


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_has_a_plan(dataset, tmp_path, monkeypatch, capsys, name):
    """SD1.5's own weights are missing here: a stated condition, and the exit code says so."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "estimate", lambda *_: memory.Memory(1, 1, 1, 1, 1, 1, 1, 1))
    if name in BUILT_ON:
        pretend_run(tmp_path, BUILT_ON[name])
    before = sorted(tmp_path.rglob("*"))
    words = ["train", f"experiment={name}", "--dry-run", "data.workers=1", "data.stride=1"]
    words = words[:3] if name in TASKS else [*words, f"data.path={dataset}"]
    code = main(words)
    told = capsys.readouterr()
    assert sorted(tmp_path.rglob("*")) == before
    assert f"live2diff train experiment={name}" in told.out
    if name in TRAINED:
        assert f"{TRAINED[name]:,} parameters: " in told.out and f"motion {MOTION:,}" in told.out
        assert re.search(
            r"batch +(4 clips x 8|1 clips x 1) devices x \d+ micro-steps = 1024 per update", told.out
        )
        sd15 = {
            "error: model.unet.pretrained=stable-diffusion-v1-5/stable-diffusion-v1-5: is not on this machine"
        }
        missing = {line.split("; fetch")[0] for line in told.err.splitlines()}
        assert code in (2, 4, 5) and (name in BUILT_ON or sd15 <= missing)
    else:
        assert code == 0, told.err
        assert "parameters: " in told.out and told.err == ""


def test_the_plan_of_a_run_that_can_start(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *FAST, f"data.path={dataset}", "trainer.batch=3", "--dry-run"]) == 0
    told = capsys.readouterr().out
    for words in (
        "4 clips in 2 shards",
        "from frames: video (3, 3, 16, 32, 32)",
        "3 clips x 1 devices x 1 micro-steps = 3 per update",
        "trained",
        "at work, the largest of: frozen nets 0.0",
        "checkpoints of 0.01 GB at most",
    ):
        assert words in told, told
    assert list(tmp_path.iterdir()) == []


def test_all_that_is_wrong_is_told_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    words = ["experiment=stage2_depth", "data.path=nowhere", "trainer.accumulate=1", "--dry-run"]
    assert main(["train", *words]) == 2
    told = capsys.readouterr()
    assert "not known: what it builds on is not there" in told.out
    for line in (
        "error: model.saved=outputs/stage1: no such folder",
        "error: trainer.devices=8, but 0 GPUs are visible",
        "error: trainer.effective_batch=1024: ",
        "error: data.path=nowhere: does not exist",
    ):
        assert line in told.err, told.err
    assert main(["train", *FAST, "data.path=nowhere", "--dry-run"]) == 2
    assert "GB, 0.00 GB are free; give another run_dir" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("more", [["--dry-run"], []])
def test_a_column_that_the_validation_lacks_is_told(tmp_path, monkeypatch, capsys, more):
    """Before the run is hours old and validates: a build that was cut short after the training split."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("train.run._task", lambda _: pytest.fail("the model was built"))
    dataset = make_dataset(tmp_path, shards=3, clips_per_shard=1, val=True)
    manifest = json.loads((dataset / "dataset.json").read_text())
    manifest["columns"] = {"text": {"shape": [77, 32], "shards": {"train": 2}}}
    (dataset / "dataset.json").write_text(json.dumps(manifest))
    words = ["train", *FAST, "validation=default", f"data.path={dataset}", *more]
    assert main(words) == 2
    assert "has column text for 0 of 1 shards" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_told(dataset, tmp_path, monkeypatch, capsys):
    def refuse(**_):
        raise OSError(30, "Read-only file system")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("train.resume.tempfile.TemporaryFile", refuse)
    assert main(["train", *FAST, f"data.path={dataset}", "--dry-run"]) == 5
    assert f"error: {tmp_path}: cannot be written (Read-only file system)" in capsys.readouterr().err


def test_the_plan_of_a_run_that_goes_on(dataset, tmp_path, capsys):
    run(dataset, tmp_path / "run", "trainer.updates=1")
    before = sorted(tmp_path.rglob("*"))
    words = ["train", *FAST, f"data.path={dataset}", f"run_dir={tmp_path / 'run'}", "--dry-run"]
    assert main(words) == 0
    assert "continued after update 1" in capsys.readouterr().out
    assert main([*words, "optim.lr=0.5"]) == 2
    assert "was run with optim.lr=0.001, now optim.lr=0.5" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before and len(checkpoints(tmp_path / "run")) == 1


@pytest.mark.parametrize("settings", [[], ["trainer.lora={rank: 4, alpha: 4}", "trainer.trainable=[]"]])
def test_an_outline_has_the_sizes_of_the_model(settings):
    config = load_config([*FAST, "data.path=x", *settings])
    sizes = []
    for make in (outline, build):
        model = as_trained(make(config["model"]), config)
        choose_trainable(model.unet, config["trainer"]["trainable"])
        parts = (model.unet, model.vae, model.text, model.depth)
        sizes.append([*map(parameters_of, parts), plan.trained_by_group(model)])
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_estimate_is_near_what_the_allocator_counts(dataset, checkpointing):
    """The step's memory, by torch's own record of every allocation: within a tenth."""
    settings = [f"trainer.gradient_checkpointing={checkpointing}", f"data.path={dataset}"]
    config = load_config([*FAST, *settings])
    config["trainer"]["batch"] = 1
    module, clips = module_and_clips(dataset, *settings)
    batch = take(clips, 1)
    module.unet.train()
    module.loss(batch).backward()  # gradients are there from now on
    with profile(profile_memory=True) as record:
        module.loss(batch).backward()
    now = most = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    model = as_trained(outline(config["model"]), config)
    choose_trainable(model.unet, config["trainer"]["trainable"])
    need = estimate(model, config["trainer"], config["data"], Parts())
    guess = max(need.encoding, need.step)
    assert 1 / 1.1 < guess / most < 1.1, (guess, most)
    assert need.weights == 4 * sum(map(parameters_of, (model.unet, model.vae, model.text, model.depth)))


def test_what_is_frozen_needs_half_the_memory_under_mixed_precision():
    needs = {}
    for precision in ("32-true", "bf16-mixed"):
        words = [*FAST, "data.path=x", f"trainer.precision={precision}", "trainer.accelerator=cpu"]
        config = load_config([*words, "trainer.trainable=[motion]"])
        model = as_trained(outline(config["model"]), config)
        choose_trainable(model.unet, config["trainer"]["trainable"])
        matrices = [m for m in model.unet.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
        sizes = [p.numel() for m in matrices for p in m.parameters() if not p.requires_grad]
        needs[precision] = estimate(model, config["trainer"], config["data"], Parts())
    full, mixed = needs["32-true"], needs["bf16-mixed"]
    assert full.weights - mixed.weights == 2 * sum(sizes) > 0
    assert mixed.step < full.step and mixed.optimiser == full.optimiser


def test_what_several_processes_keep():
    """ddp adds buckets for the gradients; fsdp divides what belongs to the UNet."""
    needs = {}
    for strategy in ("ddp", "fsdp"):
        config = load_config([*FAST, "data.path=x", "trainer.ema=0.99", f"trainer.strategy={strategy}"])
        model = as_trained(outline(config["model"]), config)
        choose_trainable(model.unet, config["trainer"]["trainable"])
        trained, unet = sum(plan.trained_by_group(model).values()), parameters_of(model.unet)
        needs[strategy] = estimate(model, config["trainer"], config["data"], Parts(), world=2).kept()
    weights = needs["ddp"].pop("weights")
    assert needs["ddp"] == dict(
        gradients=4 * trained, buckets=4 * trained, optimiser=8 * trained, mean=4 * trained
    )
    assert needs["fsdp"].pop("weights") == weights - 2 * unet
    assert needs["fsdp"] == dict(gradients=2 * trained, optimiser=4 * trained, mean=2 * trained)


def test_the_documentation_s_commands_compose():
    text = (ROOT / "docs/training.md").read_text()
    lines = re.findall(r"^(?:live2diff|torchrun .* -m) train (.*?)(?: #.*)?$", text, flags=re.MULTILINE)
    assert len(lines) >= 10
    for line in lines:
        load_config([word for word in shlex.split(line) if not word.startswith("--")])
    named = {*re.findall(r"`(\w+)`", text.split("## Switches")[0])}
    letters = {"ablation_b", "ablation_c"}  # between `ablation_a` and `ablation_d`
    assert set(options("experiment")) <= named | letters
    assert set(options("debug")) <= {*re.findall(r"`(\w+)`", text)}
