"""The figures of `bench data` about reading: what is measured and how it is told. Never how fast."""

from __future__ import annotations

import multiprocessing
import threading

import pytest

from live2diff.model.video_model import VideoModel
from tests.train.columns import build_columns
from train import bench_data
from train.bench_data import make_model, measure_reading, reading_lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    build_columns(folder, 2)
    return folder


def test_everything_is_measured_and_told(folder):
    originals = sorted((folder / "videos").glob("*.mp4"))
    broken = folder / "broken.mp4"
    broken.write_bytes(b"no video")
    result = measure_reading(folder / "dataset", [broken, *originals], seconds=0.02)
    assert result["sample"] == {"frames": 16, "stride": 1, "size": 40}
    assert {"pyav", "decord"} <= set(result["frames"])
    base = result["baseline"]
    for row in (*result["frames"].values(), result["latents"], result["columns"]):
        assert 0 < row["low"] <= row["clips_per_s"] <= row["high"]
        assert row["ratio"] == pytest.approx(row["clips_per_s"] / base["clips_per_s"], rel=0.05)
        for wanted, workers in row["workers"].items():
            assert (workers - 1) * row["clips_per_s"] < wanted * 1.01 <= 1.02 * workers * row["clips_per_s"]
    lines = reading_lines(result)
    assert len(lines) == 2 + 1 + len(result["frames"]) + 2
    assert lines[2].startswith("originals, decord") and lines[-1].startswith("all columns")


def test_what_decord_cannot_read_is_told(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    here, there = multiprocessing.Pipe()
    arguments = (there, [str(tmp_path / "clip.mp4")], {"frames": 16, "stride": 1, "size": 32})
    child = threading.Thread(target=bench_data._serve, args=arguments)
    child.start()
    here.send(0.01)
    assert here.recv() == "none of them has 16 frames for it"
    here.close()
    child.join()


def test_the_model_has_latents_of_stable_diffusion_s_size(tmp_path):
    make_model(tmp_path / "model")
    model = VideoModel.load(tmp_path / "model")
    assert (model.downscale, model.vae.config.latent_channels) == (8, 4)
