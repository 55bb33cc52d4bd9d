"""Wrong settings of a run: one line with the key, the value and what was expected."""

from __future__ import annotations

import pytest

from live2diff.errors import UsageError
from train.settings import load_config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.batch=abc", "trainer.batch: Value 'abc' .* could not be converted to Integer"),
        ("trainer.batch=0", "trainer.batch=0: expected 1 or more"),
        ("trainer.accumulate=0", "trainer.accumulate=0: expected 1 or more"),
        ("trainer.save_every=0", "trainer.save_every=0: expected null or 1 or more"),
        ("trainer.updates=-1", "trainer.updates=-1: expected 1 or more"),
        ("trainer.updates=null", "trainer.updates: Incompatible value 'None'"),
        ("trainer.clip_grad=0", "trainer.clip_grad=0.0: expected null or more than 0"),
        ("trainer.precision=foo", "trainer.precision=foo: expected one of 32-true, bf16-mixed"),
        ("trainer.devices=many", "trainer.devices=many: expected auto or 1, 2"),
        ("trainer.mask=causl", "trainer.mask=causl: expected one of bidirectional"),
        ("trainer.loss=l3", "trainer.loss=l3: expected one of l1, mse, huber"),
        ("trainer.min_snr=0", "trainer.min_snr=0.0: expected null or more than 0"),
        ("trainer.offset_noise=-1", "trainer.offset_noise=-1.0: expected 0 or more"),
        ("trainer.compile=2x", "trainer.compile: Value '2x' is not a valid bool"),
        ("trainer.lora=16", "trainer.lora: Invalid type assigned: int"),
        ("trainer.lora={rank: 0, alpha: 1}", "trainer.lora=.*: expected null, or {rank: 1 or more"),
        ("trainer.lora={rank: 8}", "trainer.lora.alpha: Missing mandatory value"),
        ("trainer.lora={rank: 8, alpha: 8, dropout: 1}", "unknown setting trainer.lora.dropout"),
        (
            "trainer.task=sleep",
            "trainer.task=sleep: expected one of diffusion, toy_vae, .*toy_drawing",
        ),
        ("optim.kind=sgd", "optim.kind=sgd: expected one of adam, adamw"),
        ("optim.lr=abc", "optim.lr: Value 'abc' .* could not be converted to Float"),
        ("optim.lr=nan", "optim.lr=nan: expected more than 0"),
        ("optim.betas=[0.9]", r"optim.betas=\[0.9\]: expected two numbers"),
        ("data.frames=0", "data.frames=0: expected 1 or more"),
        ("data.hflip=2", "data.hflip=2.0: expected 0 to 1"),
        ("data.columns=all", "data.columns=all: expected auto, none or a list of latents, depth, text"),
        ("data.columns=[latnts]", "data.columns=.*: expected auto, none or a list"),
        ("data.reader=opencv", "data.reader=opencv: expected one of pyav, decord, torchcodec"),
        ("data.max_corrupt=-1", "data.max_corrupt=-1.0: expected 0 to below 1"),
        ("seed=-1", "seed=-1: expected 0 to 4294967295"),
    ],
)
def test_wrong_values_are_refused(override, message):
    with pytest.raises(UsageError, match=message) as error:
        load_config(["data.path=x", override])
    assert "\n" not in str(error.value)


def test_diffusion_needs_clips():
    with pytest.raises(UsageError, match="data=null: trainer.task=diffusion needs clips"):
        load_config(["experiment=toy_vae", "trainer.task=diffusion"])


def test_a_task_without_clips_needs_none():
    assert load_config(["experiment=toy_vae"])["data"] is None
