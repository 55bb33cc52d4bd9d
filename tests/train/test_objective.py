"""What is predicted, and how an error counts: against the formulas and against diffusers' samplers."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMScheduler

from live2diff.model.build import load_model
from live2diff.model.video_model import VideoModel
from live2diff.settings import NoiseSchedule
from live2diff.stream.schedule import RowSchedule
from tests.train.runs import module_and_clips, run, take
from tests.train.shards import make_dataset
from train.noise import draw
from train.objective import Objective

SHAPE = (4, 6, 8, 8)
PREDICTIONS = ("epsilon", "v_prediction")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=2, clips_per_shard=2)


def objective(prediction="epsilon", loss="mse", min_snr=None) -> Objective:
    return Objective(NoiseSchedule(prediction=prediction), {"loss": loss, "min_snr": min_snr})


def drawn():
    """Clean clips and noise (3, C, F, h, w), low, middle and high noise levels."""
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(3, *SHAPE, generator=generator) for _ in range(2))
    return clean, noise, torch.tensor([5, 400, 999])


def snr(timestep: torch.Tensor) -> torch.Tensor:
    signal = (1 - torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)).cumprod(0)[timestep]
    return signal / (1 - signal)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_what_is_to_be_predicted_brings_the_clean_clip_back(prediction):
    """By diffusers' sampler, and by the stream's own schedule."""
    ours, noise = objective(prediction), NoiseSchedule(prediction=prediction)
    sampler = DDIMScheduler(**noise.scheduler_config())
    sampler.set_timesteps(1000)
    clean, eps, timesteps = drawn()
    noisy, target = ours.noisy(clean, eps, timesteps), ours.target(clean, eps, timesteps)
    for clip, timestep in enumerate(timesteps):
        step = sampler.step(target[clip], int(timestep), noisy[clip], return_dict=True)
        assert torch.allclose(step.pred_original_sample, clean[clip], atol=1e-4)
    rows = RowSchedule(noise, (10, 30, 45))
    noisy, target = ours.noisy(clean, eps, rows.timesteps), ours.target(clean, eps, rows.timesteps)
    for row in range(3):
        at = slice(row, row + 1)
        frames = noisy[row].transpose(0, 1), target[row].transpose(0, 1), clean[row].transpose(0, 1)
        expected = rows.c_out[at] * frames[2] + rows.c_skip[at] * frames[0]
        assert torch.allclose(rows.denoise(*frames[:2], at), expected, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_weighs_the_error_of_the_clean_clip(prediction):
    """Hang et al. 2023: whatever is predicted, the loss is min(SNR, gamma) times the error of x0."""
    clean, eps, timestep = drawn()
    ours = objective(prediction, "mse", min_snr=5.0)
    target = ours.target(clean, eps, timestep)
    wrong = target + torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    ratio = snr(timestep)
    signal = (ratio / (ratio + 1)).view(-1, 1, 1, 1, 1)
    off = (wrong - target).double() * (1 - signal).sqrt()
    error = off / signal.sqrt() if prediction == "epsilon" else off  # of x0
    expected = ratio.clamp(max=5.0) * error.square().mean(dim=(1, 2, 3, 4))
    assert torch.allclose(ours.losses(wrong, target, timestep).double(), expected, rtol=1e-4)


def test_without_min_snr_all_clips_weigh_alike():
    assert torch.equal(objective().weight(torch.tensor([0, 500, 999])), torch.ones(3))


def test_huber_is_squared_for_small_errors_and_l1_for_large_ones():
    errors = torch.tensor([0.0, 0.02, -0.05, 0.3, -2.0])
    losses = objective(loss="huber").losses(
        errors.view(5, 1, 1, 1, 1), torch.zeros(5, 1, 1, 1, 1), torch.arange(5)
    )
    expected = torch.tensor([0.0, 0.02**2 / 0.2, 0.05**2 / 0.2, 0.3 - 0.05, 2.0 - 0.05])
    assert torch.allclose(losses, expected, atol=1e-6)


def test_offset_noise_is_one_number_a_clip_and_channel():
    seeds = [3, 7]
    plain, offset, twice = (draw(seeds, SHAPE, 1000, CPU, strength) for strength in (0.0, 0.1, 0.2))
    for one, other in zip(plain[::2], offset[::2], strict=True):
        assert torch.equal(one, other)  # timestep and posterior noise
    difference = offset[1] - plain[1]
    assert (difference - difference[:, :, :1, :1, :1]).abs().max() < 1e-6
    values = difference[:, :, 0, 0, 0].flatten()
    assert len({round(float(value), 5) for value in values}) == 8
    assert torch.allclose(twice[1] - plain[1], 2 * difference, atol=1e-6)
    alone = draw(seeds[1:], SHAPE, 1000, CPU, 0.1)
    assert torch.equal(alone[1][0], offset[1][1])  # it belongs to the sample, not to the batch


def test_offset_noise_has_its_strength():
    offsets = draw(range(300), (4, 1, 1, 1), 1000, CPU, 0.5)[1] - draw(range(300), (4, 1, 1, 1), 1000, CPU)[1]
    assert abs(float(offsets.std()) - 0.5) < 0.05 and abs(float(offsets.mean())) < 0.05


def test_the_loss_of_a_batch_with_everything_switched_on(dataset):
    """Written out: v, huber, min-SNR and offset noise."""
    module, clips = module_and_clips(
        dataset, "trainer.loss=huber", "trainer.min_snr=5", "trainer.offset_noise=0.1",
        "model.settings.noise.prediction=v_prediction",
    )  # fmt: skip
    batch = take(clips, 2)
    timestep, noise, posterior = draw(batch["seed"], (4, 16, 8, 8), 1000, CPU, 0.1)
    assert not torch.equal(noise, draw(batch["seed"], (4, 16, 8, 8), 1000, CPU)[1])
    clean, ratio = module.model.encode(batch["video"], posterior), snr(timestep).float()
    signal = (ratio / (ratio + 1)).view(-1, 1, 1, 1, 1)
    alpha, sigma = signal.sqrt(), (1 - signal).sqrt()
    with torch.no_grad():
        text = module.model.text(batch["caption"])
        predicted = module.unet(alpha * clean + sigma * noise, timestep, text)
        error = (predicted - (alpha * noise - sigma * clean)).abs()
        distance = torch.where(error < 0.1, error**2 / 0.2, error - 0.05).mean(dim=(1, 2, 3, 4))
        expected = (distance * ratio.clamp(max=5) / (ratio + 1)).mean()
        assert torch.allclose(module.loss(batch), expected, rtol=1e-4)


def test_a_model_says_what_it_predicts(dataset, tmp_path):
    """From the configuration through the run and the saved folder to the stream's schedule."""
    v = ["model.settings.noise.prediction=v_prediction"]
    run(dataset, tmp_path / "run", "trainer.updates=1", *v)
    model = load_model(tmp_path / "run")
    model.save(tmp_path / "saved")
    for settings in (model.settings, VideoModel.load(tmp_path / "saved").settings):
        assert settings.noise.prediction == "v_prediction"
        assert RowSchedule(settings.noise, settings.steps).predicts_v
