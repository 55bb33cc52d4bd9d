"""The export folder: whole or absent, the same bits again, open to the next minor version."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from live2diff.cli import main
from live2diff.errors import CheckpointError, UsageError
from live2diff.interop.export import export
from live2diff.interop.lora import bake_lora, lora_names
from live2diff.model.folder import DTYPES, read_config, sha256_of
from live2diff.model.video_model import VideoModel
from tests.interop.exports import tiny_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny_model().save(folder)
    return folder


@pytest.fixture(scope="module")
def exported(saved, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "mine"
    export(saved, folder)
    return folder


def copy(folder, tmp_path, **changes):
    """A copy of an export with other values in its config.json."""
    target = tmp_path / "copy"
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    for key, value in changes.items():
        config[key] = value
    (target / "config.json").write_text(json.dumps(config))
    return target


def states(model):
    parts = {"unet": model.unet, "vae": model.vae, "text": model.text.model, "depth": model.depth}
    return {f"{part}.{key}": t for part, module in parts.items() for key, t in module.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype and torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("name", DTYPES)
def test_every_precision_comes_back_bit_for_bit(saved, tmp_path, name):
    VideoModel.load(saved).to("cpu", DTYPES[name]).save(tmp_path / "out")
    expected = VideoModel.load(saved).to("cpu", DTYPES[name])
    kept = VideoModel.load(tmp_path / "out", dtype=None)
    assert_same(states(kept), states(expected))
    assert {kept.unet.dtype, kept.vae.dtype, kept.text.model.dtype} == {DTYPES[name]}
    assert next(kept.depth.parameters()).dtype == torch.float32
    assert_same(states(VideoModel.load(tmp_path / "out")), states(expected.to("cpu", torch.float32)))


def test_an_export_in_half_precision_is_certified(saved, tmp_path):
    certificate = export(saved, tmp_path / "out", dtype="fp16")
    assert certificate["certified"] and certificate["stored_as"] == "fp16"
    assert read_config(tmp_path / "out").dtype == torch.float16
    half = VideoModel.load(saved).to("cpu", torch.float16)
    assert_same(states(VideoModel.load(tmp_path / "out", dtype=None)), states(half))


def test_an_export_lists_the_hash_of_every_file_of_its_parts(exported):
    files = read_config(exported).files
    present = {p.relative_to(exported).as_posix() for p in exported.rglob("*") if p.is_file()}
    assert present - set(files) == {"config.json", "README.md", "parity.json", "sample.png"}
    for name, entry in files.items():
        assert entry == {"bytes": (exported / name).stat().st_size, "sha256": sha256_of(exported / name)}
        assert (exported / name).stat().st_mode == (exported / "config.json").stat().st_mode, name


def test_an_export_is_replaced_only_when_told_and_has_the_same_bytes(saved, exported, tmp_path):
    target = tmp_path / "mine"
    shutil.copytree(exported, target)
    (target / "README.md").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        export(saved, target)
    assert (target / "README.md").read_text() == "mine"
    export(saved, target, overwrite=True)
    for path in sorted(p for p in exported.rglob("*") if p.is_file()):
        assert (target / path.relative_to(exported)).read_bytes() == path.read_bytes(), path


def test_a_newer_minor_loads_with_a_warning_that_names_what_is_left_out(exported, tmp_path):
    settings = json.loads((exported / "config.json").read_text())["settings"]
    settings |= {"shutter": 0.5, "noise": {**settings["noise"], "shift": 3}}
    newer = copy(exported, tmp_path, format_version="1.7", settings=settings, licence="MIT")
    with pytest.warns(UserWarning, match="'licence', 'settings.noise.shift', 'settings.shutter'"):
        model = VideoModel.load(newer)
    assert_same(states(model), states(VideoModel.load(exported)))
    with pytest.warns(UserWarning, match="update live2diff"):
        assert main(["ckpt", "inspect", str(newer)]) == 0
    # What the command line then shows.
    assert warnings.formatwarning(UserWarning("x"), UserWarning, "file.py", 3) == "warning: x\n"


def test_the_first_format_still_loads(exported, tmp_path):
    old = copy(exported, tmp_path, format_version=1)
    config = json.loads((old / "config.json").read_text())
    del config["files"], config["dtype"]
    (old / "config.json").write_text(json.dumps(config))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VideoModel.load(old)
    assert main(["ckpt", "verify", str(old)]) == 4  # it has no hashes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": "2.0"}, "this version reads 1.x; update live2diff"),
        ({"format_version": 9}, "this version reads 1.x; update live2diff"),
        ({"format_version": "1.1.1"}, "this version reads 1.x"),
        ({"format_version": None}, "this version reads 1.x"),
        ({"licence": "MIT"}, "unknown key 'licence'"),
        ({"dtype": "fp8"}, "dtype='fp8'; expected one of fp32, fp16, bf16"),
        ({"dtype": ["fp16"]}, "expected one of fp32"),
        ({"files": []}, "files must be a table"),
        ({"settings": 3}, "must be a table"),
    ],
)
def test_a_config_of_another_kind_is_refused(exported, tmp_path, changes, message):
    with pytest.raises(CheckpointError) as error:
        VideoModel.load(copy(exported, tmp_path, **changes))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_weight_that_does_not_fit_the_precision_is_named_and_nothing_is_left(tmp_path, capsys):
    model = tiny_model()
    with torch.no_grad():
        model.unet.conv_in.weight[0, 0, 0, 0] = 1e6
    model.save(tmp_path / "saved")
    words = ["export", str(tmp_path / "saved"), "--out", str(tmp_path / "out"), "--dtype", "fp16"]
    assert main(words) == 4
    said = capsys.readouterr().err
    assert "out: conv_in.weight holds values that are not finite in fp16" in said and ".staged" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    assert model.to("cpu", torch.bfloat16).unet.conv_in.weight.isfinite().all()


def test_a_base_exports_knowingly_uncertified(tmp_path, capsys):
    tiny_model(mask="bidirectional").save(tmp_path / "saved")
    out = tmp_path / "base"
    assert main(["export", str(tmp_path / "saved"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "not certified: mask=bidirectional sees the future" in said and "next: live2diff train" in said
    certificate = json.loads((out / "parity.json").read_text())
    assert not certificate["certified"] and certificate["round_trip"]["bit_equal"]
    card = (out / "README.md").read_text()
    assert "cannot stream" in card and "not certified" in card and "```python" not in card
    assert not (out / "sample.png").exists()
    assert main(["ckpt", "verify", str(out)]) == 0
    assert "not certified" in capsys.readouterr().out


def test_adapters_are_baked_in_and_never_saved_beside(tmp_path):
    model = tiny_model()
    config = LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    inject_adapter_in_model(config, model.unet, "style")
    assert lora_names(model) == ["style"]
    with pytest.raises(UsageError, match="bake or remove"):
        model.save(tmp_path / "saved")
    assert not list(tmp_path.iterdir())
    bake_lora(model)
    model.save(tmp_path / "saved")
    assert_same(states(VideoModel.load(tmp_path / "saved")), states(model))
