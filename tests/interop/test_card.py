"""The model card of a run: what it says is true, and its Python runs."""

from __future__ import annotations

import csv
import json
import re
import shutil

import cv2
import pytest
from safetensors.torch import load_file, save_file

from live2diff import toy
from live2diff.cli import main
from live2diff.interop.card import model_card
from live2diff.interop.history import dataset_facts
from live2diff.interop.licences import UNKNOWN, licence_of
from live2diff.model.folder import read_config
from live2diff.model.video_model import VideoModel
from live2diff.runs import checkpoints
from live2diff.video import VideoReader
from tests.interop.exports import WINDOW, tiny_model
from tests.train.runs import SMALL
from tests.train.shards import make_dataset
from train.run import train

TOTALS = {"inputs": 2, "clips": 2, "frames": 80, "seconds": 10.0, "rejected": 0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two updates on a small dataset, from a saved base."""
    folder = tmp_path_factory.mktemp("trained")
    dataset = make_dataset(folder, shards=1, clips_per_shard=2)
    summary = json.loads((dataset / "dataset.json").read_text())
    summary |= {"config_hash": "4f2a", "totals": TOTALS}  # as `live2diff data build` writes them
    (dataset / "dataset.json").write_text(json.dumps(summary))
    model = tiny_model()
    model.provenance["built_from"] = {
        "unet": "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "vae": "a|b.ckpt",
    }
    model.save(folder / "base")
    saved = ["model=saved", f"model.saved={folder / 'base'}", f"data.path={dataset}"]
    assert train([*SMALL, *saved, f"run_dir={folder / 'run'}", "trainer.updates=2", "data.frames=6"]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "mine"
    assert main(["export", str(trained), "--out", str(out)]) == 0
    return out


def test_the_card_tells_how_the_model_came_to_be(trained, exported):
    card = (exported / "README.md").read_text()
    assert re.search(r"2 updates of \d+ x \d+ clips per device, l1 loss", card)
    assert "2 clips, 80 frames, 10.0 s, made with settings 4f2a" in card
    with open(trained / "metrics.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert (
        f"| loss | {float(last['loss'])} | `loss; update 2; l1 on the prediction; mask warmup_causal" in card
    )
    assert "CreativeML Open RAIL-M (Stable Diffusion 1.5)" in card
    assert f"| vae | `a/b.ckpt` | {UNKNOWN} |" in card
    assert "certified: streaming equals the masked forward" in card
    for name, entry in read_config(exported).files.items():
        if name.endswith(".safetensors"):
            assert f"| `{name}` | {entry['bytes']} | `{entry['sha256']}` |" in card


def test_the_sample_shows_frames_above_what_came_of_them(exported):
    picture = cv2.imread(str(exported / "sample.png"))
    assert picture is not None
    frames = WINDOW["warmup"] + 4
    height, width = picture.shape[:2]
    assert width == height * frames // 2  # square frames in two rows
    assert picture[: height // 2].std() > 5 and picture[height // 2 :].std() > 5
    assert "](sample.png)" in (exported / "README.md").read_text()


def test_the_python_of_the_card_runs(exported, tmp_path, monkeypatch):
    monkeypatch.chdir(exported.parent)
    toy.write_videos(tmp_path, 1, seconds=1.5, fps=8, size=(48, 40), depth=False)
    (tmp_path / "toy_000000.mp4").rename(exported.parent / "clip.mp4")
    (block,) = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), flags=re.DOTALL)
    exec(block, {})
    with VideoReader(exported.parent / "out.mp4") as video:
        assert len(list(video)) == 12 and video.size == (32, 32)


def test_a_dataset_out_of_reach_is_said(exported, tmp_path):
    assert dataset_facts(tmp_path / "gone") == dataset_facts(None) == {}
    model = VideoModel.load(exported)
    del model.provenance["training"][0]["dataset"]
    certificate = json.loads((exported / "parity.json").read_text())
    assert "(out of reach at export)" in model_card(model, exported, "mine", certificate)


def test_a_foreign_provenance_breaks_no_card(exported):
    model = VideoModel.load(exported)
    certificate = json.loads((exported / "parity.json").read_text())
    for strange in ({"training": 3}, {"training": [{"trainer": 1, "metrics": {}}, 7]}, {"built_from": []}):
        model.provenance = strange
        assert "## Use" in model_card(model, exported, "mine", certificate)


# -- the average of the weights ---------------------------------------------------------------------------


def with_average(trained, tmp_path):
    """The run, with an average of its own beside the trained weights."""
    folder = tmp_path / "averaged"
    shutil.copytree(trained, folder)
    (checkpoint,) = checkpoints(folder)
    average = {key: t + 0.5 for key, t in load_file(checkpoint / "weights.safetensors").items()}
    save_file(average, checkpoint / "ema.safetensors")
    return folder, average


def test_export_and_extract_take_the_average(trained, tmp_path, capsys):
    folder, average = with_average(trained, tmp_path)
    words = ["export", str(folder), "--out", str(tmp_path / "out"), "--weights", "ema"]
    assert main(words) == 0
    state = VideoModel.load(tmp_path / "out").unet.state_dict()
    assert all((state[key] == tensor).all() for key, tensor in average.items())
    assert "ema weights" in (tmp_path / "out/README.md").read_text()
    assert main(["ckpt", "extract-ema", str(folder), "--out", str(tmp_path / "ema.safetensors")]) == 0
    assert f"{len(average)} averaged tensors" in capsys.readouterr().out
    found = load_file(tmp_path / "ema.safetensors")
    assert found.keys() == average.keys()
    assert all((found[key] == tensor).all() for key, tensor in average.items())


def test_an_average_that_is_not_there(trained, exported, tmp_path, capsys):
    (checkpoint,) = checkpoints(trained)
    if not (checkpoint / "ema.safetensors").exists():
        for words in (["export", str(trained), "--weights", "ema"], ["ckpt", "extract-ema", str(trained)]):
            assert main([*words, "--out", str(tmp_path / "x.safetensors")]) == 4
            assert "holds no average of the weights" in capsys.readouterr().err
    words = ["export", str(exported), "--weights", "ema", "--out", str(tmp_path / "out")]
    assert main(words) == 4
    assert "has one set of weights" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("source", "licence"),
    [
        ("models/mm_sd_v15.ckpt", "Apache-2.0"),
        ("guoyww/animatediff/v3_sd15_mm.ckpt", "Apache-2.0"),
        ("models/dpt_hybrid_384.pt", "MIT"),
        ("models/live2diff.ckpt", "Apache-2.0"),
        ("madebyollin/taesd", "MIT"),
        ("latent-consistency/lcm-lora-sdv1-5", "Open RAIL++"),
        ("v1-5-pruned-emaonly.safetensors", "CreativeML Open RAIL-M"),
    ],
)
def test_licences_of_the_usual_models(source, licence):
    assert licence_of(source).startswith(licence)


def test_other_models_have_no_licence_made_up():
    assert licence_of("models/my_style.safetensors") == UNKNOWN
