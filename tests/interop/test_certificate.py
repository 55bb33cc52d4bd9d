"""The parity certificate: it holds for what streams, and each way of not holding leaves no export behind."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from live2diff.cli import main
from live2diff.errors import CheckpointError
from live2diff.interop import certificate
from live2diff.interop.certificate import TOLERANCE, certify
from live2diff.memory import StreamMemory
from live2diff.model import masks
from live2diff.model.temporal import TemporalTransformer
from live2diff.model.unet import CausalUNet
from tests.interop.exports import tiny_export, tiny_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "model"
    tiny_model().save(folder)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return tiny_export(tmp_path_factory.mktemp("export"))


def test_what_it_says(exported):
    found = json.loads((exported / "parity.json").read_text())
    rows = found["streaming"]["rows"]
    assert [(row["pipeline"], row["row"]) for row in rows] == [
        (1, 0),
        *((2, row) for row in range(2)),
        *((4, row) for row in range(4)),
    ]
    # Measured, and small: float32 over a few layers. Exactly zero would mean that nothing was compared.
    assert all(0 < row[part] < TOLERANCE / 10 for row in rows for part in ("inside", "beyond"))
    assert found["causality"] == {
        "changed_frames": [2, 4, 6, 11],
        "largest_change_of_an_earlier_frame": 0.0,
    }
    assert found["certified"] and found["round_trip"]["bit_equal"]
    assert found["sizes"]["frames"] == 12 > found["sizes"]["window"]
    assert set(found["versions"]) >= {"live2diff", "torch", "diffusers", "python"}
    config = json.loads((exported / "config.json").read_text())
    assert found["files"] == {name: entry["sha256"] for name, entry in config["files"].items()}


def test_verify_measures_it_again_anywhere(exported, tmp_path, capsys):
    moved = tmp_path / "elsewhere"
    shutil.copytree(exported, moved)
    assert main(["ckpt", "verify", str(moved)]) == 0
    said = capsys.readouterr().out
    assert "10 files have the hashes" in said and "certified: streaming equals the masked forward" in said
    assert "bit for bit the exported ones" in said


def test_a_large_model_is_run_with_fewer_rows_and_probed_as_often(exported, monkeypatch):
    small = json.loads((exported / "parity.json").read_text())
    monkeypatch.setattr(certificate, "_CHEAP", 0)
    found = certify(exported)
    assert [(row["pipeline"], row["row"]) for row in found["streaming"]["rows"]] == [(1, 0), (2, 0), (2, 1)]
    assert found["causality"] == small["causality"] and found["round_trip"] == small["round_trip"]


def test_a_causal_model_without_depth_is_certified_too(tmp_path):
    """It has no warm-up in the stream, whatever its settings say."""
    found = json.loads(
        (tiny_export(tmp_path, tiny_model(mask="causal", uses_depth=False)) / "parity.json").read_text()
    )
    assert found["certified"] and found["sizes"]["warmup"] == 0 and not found["sizes"]["depth"]
    assert found["causality"]["changed_frames"] == [1, 3, 6, 11]


# -- what it must refuse --------------------------------------------------------------------------------


def norm_over_frames(monkeypatch):
    """diffusers' group norm: one mean for all frames of a clip."""
    forward = TemporalTransformer.forward

    def leaky(self, hidden_states, *args, num_frames, **kwargs):
        frames = hidden_states.unflatten(0, (-1, num_frames.frames))
        shared = frames - frames.mean(dim=1, keepdim=True)
        return forward(self, shared.flatten(0, 1), *args, num_frames=num_frames, **kwargs)

    monkeypatch.setattr(TemporalTransformer, "forward", leaky)


def bidirectional_mask(monkeypatch):
    """Training under a mask that shows the future."""
    visible = masks.visible

    def all_of_it(mask, frames, window, warmup):
        return torch.ones_like(visible(mask, frames, window, warmup))

    monkeypatch.setattr(masks, "visible", all_of_it)


def wrong_positions(monkeypatch):
    """A stream that does not shift positions when it evicts a frame."""
    tick = StreamMemory.tick

    def stuck(self, live):
        planned = tick(self, live)
        full = self.count >= self.window - self.warmup
        return planned._replace(own_position=planned.own_position - full.long())

    monkeypatch.setattr(StreamMemory, "tick", stuck)


def forgetful_memory(monkeypatch):
    """A stream whose rows write over each other."""
    write = StreamMemory.write

    def all_the_same(self, layer, tick, key, value):
        write(self, layer, tick, key[:1].expand_as(key), value)

    monkeypatch.setattr(StreamMemory, "write", all_the_same)


def dead_rows(monkeypatch):
    """Rows that remember something before their first frame is there."""
    write = StreamMemory.write

    def regardless(self, layer, tick, key, value):
        write(self, layer, tick._replace(live=torch.ones_like(tick.live)), key, value)

    def count(self, tick):
        self.count += 1

    monkeypatch.setattr(StreamMemory, "write", regardless)
    monkeypatch.setattr(StreamMemory, "commit", count)


def lost_configuration(monkeypatch):
    """Weights that come back whole, in a network of other heads."""
    save = CausalUNet.save_pretrained

    def forget(self, folder):
        save(self, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "motion_num_attention_heads": 2}))

    monkeypatch.setattr(CausalUNet, "save_pretrained", forget)


def rounded_weights(monkeypatch):
    """A writer that rounds."""
    save = CausalUNet.save_pretrained

    def round_off(self, folder):
        save(self, folder)
        path = folder / "diffusion_pytorch_model.safetensors"
        state = {key: tensor.bfloat16().float() for key, tensor in load_file(path).items()}
        save_file(state, path, {"format": "pt"})

    monkeypatch.setattr(CausalUNet, "save_pretrained", round_off)


@pytest.mark.parametrize(
    ("defect", "message"),
    [
        (norm_over_frames, "differs from the masked forward|changes earlier frames"),
        (bidirectional_mask, "differs from the masked forward"),
        (wrong_positions, "differs from the masked forward .* beyond the window"),
        (forgetful_memory, "differs from the masked forward .*row 1 of 2"),
        (dead_rows, "differs from the masked forward by nan"),
        (lost_configuration, "the same weights but computes something else"),
        (rounded_weights, "the weights on disk are not those of the model"),
    ],
)
def test_a_model_that_does_not_hold_is_not_exported(saved, tmp_path, monkeypatch, capsys, defect, message):
    defect(monkeypatch)
    assert main(["export", str(saved), "--out", str(tmp_path / "out")]) == 4
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(said) == 1 and "out: not certified" in said[0]
    assert re.search(message, said[0]), said[0]
    assert not list(tmp_path.iterdir())


def test_the_causality_probe_alone_finds_a_leak(exported, monkeypatch):
    """Also where streaming is not compared."""
    monkeypatch.setattr(certificate, "_streaming", lambda *_: {})
    for leak in (norm_over_frames, bidirectional_mask):
        with monkeypatch.context() as patch:
            leak(patch)
            with pytest.raises(CheckpointError, match="changes earlier frames by .*sees the future"):
                certify(exported)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: flip(f / "unet/diffusion_pytorch_model.safetensors"), "is not the file that was exported"),
        (lambda f: flip(f / "tokenizer/tokenizer.json", at=5), "is not the file that was exported"),
        (lambda f: (f / "depth/model.safetensors").unlink(), "depth/model.safetensors is missing"),
        (lambda f: (f / "unet/extra.safetensors").touch(), "does not belong to this export"),
        (lambda f: edit(f / "parity.json", "round_trip", {"parts": {}}), "belongs to other weights"),
        (lambda f: edit(f / "config.json", "files", {"../../etc/passwd": {}}), "is missing"),
        (lambda f: edit(f / "config.json", "files", {}), "lists no hashes"),
    ],
)
def test_a_changed_export_does_not_verify(exported, tmp_path, capsys, change, message):
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    change(folder)
    assert main(["ckpt", "verify", str(folder)]) == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(folder) in said and message in said


def flip(path, at=-5):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def edit(path, key, value):
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
