"""Figures of outputs whose worth is known, and a stream without its cache."""

from __future__ import annotations

import numpy as np
import pytest

from train.ablate.cache import compare_caches
from train.ablate.data import toy_model
from train.ablate.measure import KINDS, Measure
from train.ablate.scenes import TrueScene, held_out


@pytest.fixture(scope="module")
def measure() -> Measure:
    return Measure(toy_model())


@pytest.fixture(scope="module")
def scene() -> TrueScene:
    return next(held_out(1, 8))


def test_the_truth_is_better_than_anything_else(measure: Measure, scene: TrueScene) -> None:
    other = next(iter(list(held_out(2, 8))[1:])).truth
    noise = np.random.default_rng(0).integers(-40, 40, scene.truth.shape)
    grainy = np.clip(scene.truth + noise, 0, 255).astype(np.uint8)
    truth = measure(scene, scene.truth)
    assert truth.keys() == KINDS.keys() and truth["psnr"] == np.inf
    for output, figures in (
        (other, ("depth_mse", "depth_mse_aligned", "warp_error", "psnr")),
        (grainy, KINDS),
    ):
        worse = measure(scene, output)
        for name in figures:
            assert (truth[name] < worse[name]) == (KINDS[name].better == "lower"), name


def test_a_still_is_as_steady_as_can_be(measure: Measure, scene: TrueScene) -> None:
    still = measure(scene, np.repeat(scene.truth[:1], 8, axis=0))
    assert still["latent_temporal"] == pytest.approx(100, abs=1e-3) and still["flicker"] == 0
    # Centred, so that a video that is not still is well below.
    assert measure(scene, scene.truth)["latent_temporal"] < 97


def test_with_and_without_a_cache_pictures_are_the_same_until_a_frame_is_evicted() -> None:
    sizes = ["model.settings.window=6", "model.settings.warmup=2"]
    model, ticks = toy_model("model.unet.motion=toy:live2diff.safetensors", *sizes), []
    found = compare_caches(model, held_out(1, 9), (25, 37), lambda: ticks.append(1))
    assert found["before"]["largest"] <= 1 and found["before"]["mean"] < 0.001
    assert found["after"]["mean"] > 10 * found["before"]["mean"] and found["after"]["mean"] > 0.01
    assert len(found["cache_s"]) == len(found["no_cache_s"]) == 9 - 6 and ticks == [1]
