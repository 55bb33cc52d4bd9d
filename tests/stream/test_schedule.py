"""The tabled coefficients are diffusers' LCM sampler, row by row."""

from __future__ import annotations

import pytest
import torch
from diffusers import LCMScheduler

from live2diff.errors import UsageError
from live2diff.settings import NoiseSchedule
from live2diff.stream.schedule import RowSchedule


def test_timesteps_are_the_release_s():
    """The public release's choices: 30, 40 -> 399, 199; index i is timestep 999 - 20 i."""
    assert RowSchedule(NoiseSchedule(), (30, 40)).timesteps.tolist() == [399, 199]
    assert RowSchedule(NoiseSchedule(), (0, 25, 34, 43)).timesteps.tolist() == [999, 499, 319, 139]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [(30, 40), (25, 34, 43), (10,)])
def test_rows_do_what_the_scheduler_does(steps, prediction):
    noise = NoiseSchedule(prediction=prediction)
    rows = RowSchedule(noise, steps)
    scheduler = LCMScheduler(**noise.scheduler_config(), original_inference_steps=50)
    scheduler.set_timesteps(timesteps=rows.timesteps.tolist())
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(1, 4, 8, 8, generator=generator)
    first = torch.randn(1, 4, 8, 8, generator=generator)
    ours = rows.add_noise(clean, first, slice(0, 1))
    assert torch.equal(ours, scheduler.add_noise(clean, first, rows.timesteps[:1]))
    theirs = ours
    for row, timestep in enumerate(rows.timesteps):
        at = slice(row, row + 1)
        predicted = torch.randn(1, 4, 8, 8, generator=generator)
        denoised = rows.denoise(ours, predicted, at)
        torch.manual_seed(row)
        step = scheduler.step(predicted, timestep, theirs, return_dict=False)
        assert torch.allclose(denoised, step[1], atol=1e-6)
        if row + 1 < rows.rows:
            torch.manual_seed(row)
            ours = rows.add_noise(denoised, torch.randn(predicted.shape), slice(row + 1, row + 2))
            theirs = step[0]
            assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("steps", [(), (40, 30), (30, 30), (50,), (-1, 3)])
def test_impossible_steps_are_refused(steps):
    with pytest.raises(UsageError, match="steps"):
        RowSchedule(NoiseSchedule(), steps)
