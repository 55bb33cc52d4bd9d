"""Files that are not what they say, through the command line: one line, exit 4, no code run, nothing left."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import resource
import shutil
import struct
import subprocess
import sys
import types
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load, save, save_file

from live2diff.cli import main
from live2diff.config import compose
from live2diff.model.build import build
from live2diff.video import write_video
from live2diff.weights import read_weights
from tests.interop import public
from tests.interop.public import animatediff, new_adapter, new_text, new_unet, new_vae, single_file
from tests.train.shards import make_dataset

KEYS = {
    "unet": "model.unet.pretrained",
    "motion": "model.unet.motion",
    "vae": "model.vae.pretrained",
    "text": "model.text.pretrained",
    "depth": "model.depth.weights",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A narrow SD1.5 as one file and as a folder, motion modules for it, and a dataset."""
    folder = tmp_path_factory.mktemp("world")
    parts = new_unet(seed=1), new_vae(seed=2), new_text(seed=3)
    public.save_folder(folder / "sd15", *parts)
    save_file(single_file(*parts), folder / "sd15.safetensors")
    torch.save(animatediff(new_adapter(seed=4)), folder / "motion.ckpt")
    make_dataset(folder, shards=1, clips_per_shard=1)
    return folder


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "export"
    config: Any = OmegaConf.to_container(
        compose("train", ["data.path=none", "model.settings.size=[32,32]"]).model
    )
    build(config, seed=0).save(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, [np.full((32, 32, 3), i, dtype=np.uint8) for i in range(10)], fps=8)
    return path


def train(world, tmp_path, part: str, path) -> list[str]:
    """`live2diff train` on the tiny model, with `path` in the place of one part."""
    small = ["data.size=32", "model.settings.size=[32,32]", "trainer.precision=32-true", "trainer.updates=1"]
    where = [f"data.path={world}/dataset", f"run_dir={tmp_path}/run"]
    tokenizer = f"++model.text.tokenizer={world}/sd15" if path.is_file() else "++model.text.tokenizer=null"
    return ["train", "experiment=tiny", f"{KEYS[part]}={path}", tokenizer, *small, *where]


def stream(export, clip, tmp_path) -> list[str]:
    return ["stream", str(export), "--input", str(clip), "--output", str(tmp_path / "out.mp4")]


def refused(arguments, capsys, tmp_path) -> str:
    """The one line that is said; checks the rest of the promise."""
    before = files(tmp_path)
    assert main(arguments) == 4
    said = capsys.readouterr()
    errors = [line for line in said.err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "Traceback" not in said.err and errors[0].isprintable(), said.err
    assert len(errors[0]) < 700, errors[0]
    assert files(tmp_path) == before, "something was left behind"
    return errors[0]


def files(folder) -> list:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def test_the_good_files_go_in(world, export, clip, tmp_path, capsys):
    """So that what the others are refused for is the damage."""
    sizes = {"unet": public.UNET, "vae": public.VAE, "text": public.TEXT}
    changes = [
        f"++model.{part}.config.{key}={value}"
        for part, table in sizes.items()
        for key, value in table.items()
    ]
    sources = [f"{KEYS[part]}={world}/sd15.safetensors" for part in sizes]
    depth = ["model.depth.preset=tiny", "model.depth.weights=null", "++model.settings.size=[32,32]"]
    words = [
        word for word in train(world, tmp_path, "motion", world / "motion.ckpt") if "settings" not in word
    ]
    arguments = [*words, "model=sd15", *sources, *changes, *depth]
    assert main(arguments) == 0, capsys.readouterr().err
    assert main(stream(export, clip, tmp_path)) == 0, capsys.readouterr().err


# -- thirty and some malformed files --------------------------------------------------------------------


def header(table: object, data: bytes = b"") -> bytes:
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(shape, offsets, dtype="F32") -> dict:
    return {KEY: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def changed(good: bytes, key: str, value) -> bytes:
    """The file with one tensor replaced; None takes it out."""
    state = load(good)
    state[key] = value(state[key]) if callable(value) else value
    return save({key: tensor for key, tensor in state.items() if tensor is not None})


def as_torch(value, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def compressed(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


def zeros(**shapes) -> bytes:
    return save({key: torch.zeros(shape) for key, shape in shapes.items()})


def bomb(call: str, arguments: bytes) -> bytes:
    """A pickle that calls something harmless-looking with a huge argument, in a bare file."""
    return b"\x80\x02c" + call.encode() + b"\n" + arguments + b"R."


UNET_IN = "model.diffusion_model.input_blocks.0.0.weight"
KEY = "conv_out.weight"
NAN = float("nan")

# In the place of an export's UNet, through `live2diff stream`. Name: (content, what the line says).
EXPORTED = {
    "header cut short": (lambda good: good[:500], "a header of"),
    "data cut short": (lambda good: good[:-99], "readable"),
    "2 GB header": (lambda good: struct.pack("<Q", 2**31) + good[8:], "a header of 2147483648 bytes"),
    "endless header": (lambda good: struct.pack("<Q", 2**63) + b"{}", "a header of 922"),
    "header of noise": (lambda good: header(b"{" + b"\xff" * 90), "readable"),
    "nested header": (lambda good: header(b'{"a":' + b"[" * 90_000), "readable"),
    "tensor beyond the file": (lambda good: header(one([1 << 40], [0, 1 << 42])), "readable"),
    "shape and bytes differ": (lambda good: header(one([3], [0, 4]), b"abcd"), "readable"),
    "unknown dtype": (lambda good: header(one([1], [0, 4], "F33"), b"abcd"), "readable"),
    "integers": (lambda good: changed(good, KEY, lambda t: t.int()), "no finite floats .torch.int32"),
    "missing key": (lambda good: changed(good, KEY, None), r"1 keys missing .conv_out.weight"),
    "extra key": (lambda good: changed(good, "extra.weight", torch.zeros(1)), "1 keys unexpected .extra"),
    "misshapen": (lambda good: changed(good, KEY, torch.zeros(7)), r"\(7,\) instead of \(4, 32, 3, 3\)"),
    "NaN": (lambda good: changed(good, KEY, lambda t: t * NAN), "no finite floats"),
    "infinity": (lambda good: changed(good, KEY, lambda t: t / 0), "no finite floats"),
    "LFS pointer": (
        lambda good: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "git lfs pull",
    ),
    "web page": (lambda good: b"<!DOCTYPE html><html>Not Found</html>", "web page"),
    "empty": (lambda good: b"", "empty"),
    "noise": (lambda good: bytes(range(256)) * 9, "readable"),
    "a list": (lambda good: as_torch([torch.zeros(1)]), "no table of named weights"),
    "numbered": (lambda good: as_torch({0: torch.zeros(1)}), "no table of named weights"),
    "no tensors": (lambda good: as_torch({"epoch": 3, "config": {"a": 1}}), "holds no weights"),
    "sparse": (lambda good: as_torch({"a.b": torch.eye(3).to_sparse()}), "no plain tensor"),
    "itself": (lambda good: as_torch(holding_itself()), "no table|no plain|holds no weights"),
    "compressed pickle": (lambda good: compressed(b"\x80\x02N" + b"0" * 10**7), "readable"),
    "bytearray bomb": (lambda good: bomb("builtins\nbytearray", b"J\xff\xff\xff\x7f\x85"), "readable"),
    "doubling bomb": (lambda good: doubling(), "readable"),
    "control characters": (lambda good: save({"a\x1b[2J\n.weight": torch.zeros(1)}), r"a\\x1b\[2J"),
}


@pytest.mark.filterwarnings("ignore:Sparse invariant checks", "ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", EXPORTED)
def test_malformed_weights_of_an_export(export, clip, tmp_path, capsys, name):
    content, message = EXPORTED[name]
    copy = tmp_path / "export"
    shutil.copytree(export, copy)
    path = copy / "unet/diffusion_pytorch_model.safetensors"
    path.write_bytes(content(path.read_bytes()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = refused(stream(copy, clip, tmp_path), capsys, tmp_path)
    assert str(path.parent) in line and re.search(message, line), line
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    assert grown < 500_000, "kilobytes; the file made the process large"


# In the place of what others publish, through `live2diff train`. Name: (part, suffix, content, the line).
FOREIGN = {
    "SDXL": (
        "unet",
        ".safetensors",
        lambda w: zeros(**{UNET_IN: (8, 4, 3, 3), "conditioner.embedders.1.model.ln_final.weight": (3,)}),
        "is a Stable Diffusion XL model, not a UNet",
    ),
    "SD2": (
        "unet",
        ".safetensors",
        lambda w: zeros(**{UNET_IN: (8, 4, 3, 3), "cond_stage_model.model.ln_final.weight": (3,)}),
        "is a Stable Diffusion 2 model, not a UNet",
    ),
    "motion as UNet": (
        "unet",
        ".ckpt",
        lambda w: (w / "motion.ckpt").read_bytes(),
        "is motion modules, not a UNet",
    ),
    "LoRA as motion": (
        "motion",
        ".safetensors",
        lambda w: zeros(**{"lora_unet_x.lora_up.weight": (3, 1)}),
        "is a LoRA",
    ),
    "UNet as depth": (
        "depth",
        ".pt",
        lambda w: zeros(**{UNET_IN: (8, 4, 3, 3)}),
        "is a Stable Diffusion 1.5 model",
    ),
    "checkpoint cut short": (
        "motion",
        ".ckpt",
        lambda w: (w / "motion.ckpt").read_bytes()[:-4000],
        "readable",
    ),
    "another width": (
        "motion",
        ".ckpt",
        lambda w: (w / "motion.ckpt").read_bytes(),
        "keys unexpected|table of pos",
    ),
    "VAE of 2 GB header": (
        "vae",
        ".safetensors",
        lambda w: struct.pack("<Q", 2**31) + b'{"a":',
        "2147483648",
    ),
    "text without its end": (
        "text",
        ".safetensors",
        lambda w: zeros(**{"text_model.embeddings.token_embedding.weight": (514, 32)}),
        "keys missing",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_malformed_file_of_others(world, tmp_path, capsys, name):
    part, suffix, content, message = FOREIGN[name]
    path = tmp_path / f"file{suffix}"
    path.write_bytes(content(world))
    line = refused(train(world, tmp_path, part, path), capsys, tmp_path)
    assert str(path) in line and re.search(message, line), line


def holding_itself() -> dict:
    table: dict = {"epoch": 1}
    table["state_dict"] = table
    return table


def doubling() -> bytes:
    """encode(encode(encode(b"..", "hex"), "hex"), "hex") ... forty times over."""
    content = b"X\x01\x00\x00\x00a"
    start = b"\x80\x02c_codecs\nencode\nq\x00"
    calls = content + b"X\x05\x00\x00\x00utf-8\x86R"
    for _ in range(40):
        calls = b"h\x00" + calls + b"X\x03\x00\x00\x00hex\x86R"
    return start + calls + b"."


def spoiled(world, tmp_path, file: str, content: bytes | None):
    copy = tmp_path / "model"
    shutil.copytree(world / "sd15", copy)
    (path,) = copy.glob(file)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    return copy


SPLIT = json.dumps({"weight_map": {"conv_in.weight": "../../../etc/passwd"}}).encode()
FOLDERS = {
    "unet's config is a web page": (
        "unet",
        "unet/config.json",
        b"<html>",
        "unet/config.json: is not a readable JSON",
    ),
    "unet's config is gone": ("unet", "unet/config.json", None, "is no model folder"),
    "unet of a billion layers": (
        "unet",
        "unet/config.json",
        b'{"layers_per_block": 1000000000}',
        "cannot be meant",
    ),
    "unet is SDXL's": (
        "unet",
        "unet/config.json",
        b'{"addition_embed_type": "text_time"}',
        "Stable Diffusion XL",
    ),
    "vae without weights": ("vae", "vae/*.safetensors", None, "vae: holds no weights"),
    "vae of another kind": (
        "vae",
        "vae/config.json",
        b'{"_class_name": "AutoencoderDC"}',
        "not a VAE this project",
    ),
    "text cut short": ("text", "text_encoder/*.safetensors", b"\x08\0\0\0\0\0\0\0{", "header of 8 bytes"),
    "vocabulary is a web page": ("text", "tokenizer/tokenizer.json", b"<html>", "no readable vocabulary"),
    "vocabulary is gone": ("text", "tokenizer/tokenizer.json", None, "holds no vocabulary"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_malformed_folder(world, tmp_path, capsys, name):
    part, file, content, message = FOLDERS[name]
    copy = spoiled(world, tmp_path, file, content)
    assert message in refused(train(world, tmp_path, part, copy), capsys, tmp_path)


def test_an_index_reads_only_its_own_folder(world, tmp_path, capsys):
    copy = spoiled(world, tmp_path, "unet/*.safetensors", None)
    (copy / "unet/diffusion_pytorch_model.safetensors.index.json").write_bytes(SPLIT)
    assert "names no weight files" in refused(train(world, tmp_path, "unet", copy), capsys, tmp_path)


def test_what_is_no_file_is_not_waited_for(world, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.ckpt")
    (tmp_path / "folder").mkdir()
    for name, part, message in (
        ("pipe.ckpt", "motion", "is not a file"),
        ("folder", "vae", "is no model folder"),
        ("folder", "depth", "is not a file"),
        ("none.ckpt", "unet", "is not on this machine; no such file or folder"),
    ):
        line = refused(train(world, tmp_path, part, tmp_path / name), capsys, tmp_path)
        assert message in line and name in line


@pytest.mark.parametrize("part", ["vae", "text_encoder", "depth"])
def test_malformed_export_is_not_exported_again(tmp_path, capsys, export, part):
    copy = tmp_path / "export"
    shutil.copytree(export, copy)
    (path,) = (copy / part).glob("*.safetensors")
    path.write_bytes(struct.pack("<Q", 2**31) + b"{" * 99)
    line = refused(["export", str(copy), "--out", str(tmp_path / "out")], capsys, tmp_path)
    assert "a header of 2147483648 bytes" in line


# -- canaries in pickles --------------------------------------------------------------------------------


class Canary:
    """Pickled, it is a call that leaves a file; each kind by another road."""

    def __init__(self, road: str, path):
        self.road, self.path = road, str(path)

    def __reduce__(self):
        write = f"open({self.path!r}, 'w').close()"
        if self.road == "system":
            return os.system, (f"touch {self.path}",)
        if self.road == "exec":
            return exec, (write,)
        if self.road == "eval":
            return eval, (write,)
        return subprocess.check_call, (["touch", self.path],)


class Script:
    """What Stable Diffusion's own checkpoints hold of their training: read past, never looked up."""


Script.__module__, Script.__qualname__ = "pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"
Script.__name__ = "ModelCheckpoint"


def whole_module(canary) -> torch.nn.Module:
    module = torch.nn.Linear(2, 2)
    module.extra = canary
    return module


# name: (part, file, the road, how the canary is packed)
CANARIES = {
    "zip, motion": (
        "motion",
        "mm.ckpt",
        "system",
        lambda c: as_torch({"state_dict": {"a.b": torch.zeros(1)}, "x": c}),
    ),
    "legacy, motion": (
        "motion",
        "mm.pt",
        "exec",
        lambda c: as_torch({"a.b": torch.zeros(1), "x": c}, _use_new_zipfile_serialization=False),
    ),
    "zip of protocol 4, unet": (
        "unet",
        "base.ckpt",
        "eval",
        lambda c: as_torch({"a.b": c}, pickle_protocol=4),
    ),
    "bare pickle of protocol 0, vae": (
        "vae",
        "vae.pt",
        "system",
        lambda c: pickle.dumps({"a.b": c}, protocol=0),
    ),
    "bare pickle of protocol 5, vae": (
        "vae",
        "vae.ckpt",
        "exec",
        lambda c: pickle.dumps({"a.b": c}, protocol=5),
    ),
    "a whole module, depth": ("depth", "dpt.pt", "call", lambda c: as_torch(whole_module(c))),
    "named safetensors, depth": ("depth", "dpt.safetensors", "system", lambda c: as_torch({"a.b": c})),
    "a tensor's attribute, text": ("text", "text.bin", "eval", lambda c: as_torch({"a.b": with_note(c)})),
}


def with_note(canary) -> torch.Tensor:
    tensor = torch.nn.Parameter(torch.zeros(2))
    tensor.note = canary  # pyright: ignore[reportAttributeAccessIssue]
    return tensor


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", CANARIES)
def test_canary(world, tmp_path, capsys, name):
    part, file, road, pack = CANARIES[name]
    flown = tmp_path / "flown"
    path = tmp_path / file
    path.write_bytes(pack(Canary(road, flown)))
    line = refused(train(world, tmp_path, part, path), capsys, tmp_path)
    assert "is no readable weight file" in line and str(path) in line
    assert not flown.exists()
    # The canary is alive: without the guard it flies.
    if file.startswith("vae"):
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert flown.exists()


FOLDER_CANARIES = {
    "unet": ("unet", "diffusion_pytorch_model"),
    "vae": ("vae", "diffusion_pytorch_model"),
    "text": ("text_encoder", "pytorch_model"),
}


@pytest.mark.parametrize("part", FOLDER_CANARIES)
def test_canary_in_a_folder(world, tmp_path, capsys, part):
    folder, stem = FOLDER_CANARIES[part]
    copy = spoiled(world, tmp_path, f"{folder}/*.safetensors", None)
    flown = tmp_path / "flown"
    (copy / folder / f"{stem}.bin").write_bytes(as_torch({"a.b": Canary("system", flown)}))
    line = refused(train(world, tmp_path, part, copy), capsys, tmp_path)
    assert "would run posix.system, which is refused" in line
    assert not flown.exists()


def test_a_canary_beside_known_notes(world, tmp_path, capsys, monkeypatch):
    """The stand-ins for a training script's objects are no door."""
    module = types.ModuleType(Script.__module__)
    module.ModelCheckpoint = Script  # pyright: ignore[reportAttributeAccessIssue]
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks", Script.__module__):
        monkeypatch.setitem(sys.modules, name, module)
    notes = {"callbacks": {Script: {"best_model_score": np.float64(0.3), "script": Script()}}}
    state = single_file(new_unet(seed=1))
    path = tmp_path / "v1-5-pruned.ckpt"
    path.write_bytes(as_torch({"state_dict": state, **notes, "x": Canary("system", tmp_path / "flown")}))
    assert "posix.system" in refused(train(world, tmp_path, "unet", path), capsys, tmp_path)
    assert not (tmp_path / "flown").exists()
    # Without the canary it is Stable Diffusion's own file, and goes in.
    path.write_bytes(as_torch({"state_dict": state, **notes}))
    public.same(read_weights(path), state)
