"""Every shipped YAML composes, and wrong settings get one line that helps."""

from __future__ import annotations

import re

import pytest
from omegaconf import OmegaConf

from live2diff.config import compose
from live2diff.errors import UsageError
from live2diff.eval.settings import EvalSettings
from live2diff.settings import NoiseSchedule, Settings
from tests.conftest import ROOT
from train.ablate.settings import AblateSettings
from train.toy_tasks import TASKS

CONF = ROOT / "conf"
GROUPS = ("model", "data", "trainer", "validation", "optim", "logger", "experiment", "debug")
# What a user must say anyway.
NEEDED = ["data.path=clips"]
MORE = {"model=saved": ["model.saved=run"]}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("choice", [f"{group}={option}" for group in GROUPS for option in options(group)])
def test_every_training_config_composes(choice):
    needed = [] if choice.removeprefix("experiment=") in TASKS else NEEDED
    config = compose("train", [choice, *needed, *MORE.get(choice, [])])
    Settings.from_dict(OmegaConf.to_container(config.model.settings))
    trainer = config.trainer
    assert trainer.updates > 0 and trainer.batch > 0 and trainer.accumulate > 0


@pytest.mark.parametrize("name", options("prep"))
def test_every_prep_config_composes(name):
    compose("prep", [f"prep={name}"])


@pytest.mark.parametrize("name", options("eval"))
def test_every_eval_config_composes(name):
    EvalSettings.of([f"eval={name}"])


@pytest.mark.parametrize("name", options("ablate"))
def test_every_ablate_config_composes(name):
    AblateSettings.of([f"ablate={name}"])


def test_no_yaml_is_left_out():
    entries = {path.stem for path in CONF.glob("*.yaml")}
    assert entries == {"train", "prep", "eval", "ablate"}
    assert {path.name for path in CONF.iterdir() if path.is_dir() and path.name != "__pycache__"} == {
        *GROUPS,
        "prep",
        "eval",
        "ablate",
    }


PAPER = {
    **dict.fromkeys(
        ("stage1_mask", "paper_stage1", "warmup4", "ablation_a", "ablation_b", "ablation_c"), 3000
    ),
    **dict.fromkeys(("stage2_depth", "paper_stage2", "ablation_d"), 6000),
}


@pytest.mark.parametrize(("name", "updates"), PAPER.items())
def test_paper_recipe(name, updates):
    config = compose("train", [f"experiment={name}", *NEEDED])
    trainer, data = config.trainer, config.data
    assert (trainer.batch, trainer.devices, trainer.accumulate) == (4, 8, 32)
    assert 4 * 8 * 32 == trainer.effective_batch == 1024
    # The README's advice for one GPU keeps the product.
    one_gpu = re.search(r"`trainer.devices=(\d+) trainer.accumulate=(\d+)`", (ROOT / "README.md").read_text())
    assert one_gpu and trainer.batch * int(one_gpu[1]) * int(one_gpu[2]) == 1024
    assert trainer.updates == updates
    assert (trainer.loss, config.optim.kind, config.optim.lr) == ("l1", "adam", 1e-4)
    assert (config.optim.betas, config.optim.weight_decay) == ([0.9, 0.999], 0)
    assert (data.frames, data.stride, data.size, data.hflip, data.caption_dropout) == (16, 4, 256, 0.5, 0.1)
    assert trainer.precision == "bf16-mixed" and trainer.gradient_checkpointing
    plain = name in ("stage1_mask", "stage2_depth")
    assert (trainer.clip_grad, trainer.ema) == ((1.0, 0.9999) if plain else (None, None))


@pytest.mark.parametrize(
    ("name", "mask", "depth", "warmup", "base"),
    [
        ("ablation_a", "causal", False, 8, None),
        ("ablation_b", "warmup_causal", False, 8, None),
        ("ablation_c", "warmup_causal", False, 8, None),
        ("ablation_d", "warmup_causal", True, None, "outputs/ablation_c"),
        ("warmup4", "warmup_causal", False, 4, None),
    ],
)
def test_the_paper_s_tables(name, mask, depth, warmup, base):
    config = compose("train", [f"experiment={name}", *NEEDED])
    assert (config.trainer.mask, config.trainer.depth, config.name) == (mask, depth, name)
    assert (config.model.settings.get("warmup"), config.model.get("saved")) == (warmup, base)


def test_pia_is_the_ancestors_recipe():
    config = compose("train", ["experiment=pia", *NEEDED])
    optim, trainer = config.optim, config.trainer
    assert (optim.kind, optim.lr, optim.weight_decay, optim.betas) == ("adamw", 1e-4, 1e-2, [0.9, 0.999])
    assert (trainer.loss, trainer.clip_grad, trainer.effective_batch) == ("mse", 1.0, 1024)
    assert config.model.unet.motion.endswith("mm_sd_v15_v2.ckpt")


def test_one_small_gpu_sees_as_many_clips():
    trainer = compose("train", ["experiment=single_gpu_24gb", *NEEDED]).trainer
    assert trainer.batch * trainer.devices * trainer.accumulate == trainer.effective_batch == 1024
    assert trainer.batch == 1 and trainer.gradient_checkpointing


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.updtes=3"], "unknown setting trainer.updtes; did you mean trainer.updates?"),
        (["experiment=stage1_maks"], "experiment=stage1_maks: no such option; did you mean stage1_mask?"),
        (["modle=tiny"], "unknown setting modle; did you mean model?"),
        (["batch"], "'batch': a setting is written key=value"),
        ([], "data.path must be given, as data.path=VALUE"),
    ],
)
def test_wrong_settings(overrides, message):
    with pytest.raises(UsageError) as error:
        compose("train", overrides if not overrides else [*overrides, *NEEDED])
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 8, "warmup": 8}, "warmup=8; expected 0 to 7"),
        ({"mask": "causl"}, "mask='causl'; expected one of bidirectional"),
        ({"windows": 8}, "unknown key windows; known are mask, window"),
        ({"window": "16"}, "window='16'; expected int"),
        ({"noise": {"kind": "cosine"}}, "noise.kind='cosine'; expected linear"),
        ({"noise": {"prediction": "sample"}}, "noise.prediction='sample'; expected epsilon or v_prediction"),
        ({"noise": 3}, "noise must be a table"),
        ({"size": [512, 500]}, "size=(512, 500); expected width and height, multiples of 8"),
        ({"steps": [40, 30]}, "steps=(40, 30); expected rising"),
        ({"depth": {"kind": "median"}}, "kind='median' is unknown"),
    ],
)
def test_wrong_model_settings(change, message):
    with pytest.raises(UsageError) as error:
        Settings.from_dict(change)
    assert message in str(error.value)


def test_settings_round_trip():
    noise = NoiseSchedule(prediction="v_prediction")
    settings = Settings(window=8, warmup=4, noise=noise, steps=(20, 30), size=(64, 128))
    assert Settings.from_dict(settings.to_dict()) == settings


def test_settings_that_do_not_say_what_is_predicted_mean_the_noise():
    old = Settings().to_dict()
    del old["noise"]["prediction"]
    assert Settings.from_dict(old).noise.prediction == "epsilon"
