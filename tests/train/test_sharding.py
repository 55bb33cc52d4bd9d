"""FSDP2 on two processes: the same updates as DDP's, and checkpoints that any run reads."""

from __future__ import annotations

import csv
import weakref
from pathlib import Path

import pytest
import torch
import torch.distributed as distributed
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from live2diff.errors import UsageError
from live2diff.interop.export import export
from live2diff.runs import checkpoints
from tests.train.nursery import Nursery
from tests.train.shards import make_dataset
from tests.train.test_kill import Run, same
from train.checkpoints import FolderCheckpoints
from train.settings import load_config
from train.sharding import Sharded
from train.writer import BackgroundWriter

LORA = ["trainer.lora={rank: 3, alpha: 3}", "trainer.trainable=[motion,conv_in]"]  # 3 rows on 2 processes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=4, clips_per_shard=3)


@pytest.fixture(scope="module")
def nursery():
    with Nursery() as nursery:
        yield nursery


def losses(folder: Path) -> list[float]:
    rows = csv.DictReader((folder / "run/metrics.csv").read_text().splitlines())
    return [float(row["loss"]) for row in rows if row["loss"]]


def start(nursery, dataset, folder: Path, *words: str, ranks: int = 2) -> Run:
    run = Run(nursery, dataset, folder, workers=0, ranks=ranks)
    run.arguments += ["trainer.clip_grad=1", *words]
    return run


def agree(nursery, dataset, folder: Path, *words: str) -> Run:
    """The same run replicated and sharded; its losses, weights and running mean are compared."""
    runs = {
        kind: start(nursery, dataset, folder / kind, f"trainer.strategy={kind}", *words)
        for kind in ("ddp", "fsdp")
    }
    for run in runs.values():
        assert run.finish() == [0, 0], run.words()
    assert losses(folder / "fsdp") == pytest.approx(losses(folder / "ddp"), rel=1e-4)
    ddp, fsdp = (checkpoints(folder / kind / "run")[-1] for kind in ("ddp", "fsdp"))
    for name in ("weights", "ema"):
        first, second = (load_file(path / f"{name}.safetensors") for path in (ddp, fsdp))
        assert {k: v.shape for k, v in first.items()} == {k: v.shape for k, v in second.items()}
        for key, tensor in first.items():  # Adam divides by the gradient's size: see test_world
            assert torch.allclose(tensor, second[key], atol=4e-3), key
    return runs["fsdp"]


def test_sharded_equals_replicated(nursery, dataset, tmp_path):
    agree(nursery, dataset, tmp_path, "trainer.updates=3")
    assert len(losses(tmp_path / "fsdp")) == 3


@pytest.mark.slow
@pytest.mark.parametrize("trained", [[], LORA], ids=["modules", "lora"])
def test_a_resumed_sharded_run_equals_an_uninterrupted_one(nursery, dataset, tmp_path, trained):
    whole = agree(nursery, dataset, tmp_path, *trained)
    parts = start(nursery, dataset, tmp_path / "parts", "trainer.strategy=fsdp", *trained)
    words = list(parts.arguments)
    for updates in (2, 6):
        parts.arguments = [*words, f"trainer.updates={updates}"]
        assert parts.finish() == [0, 0], parts.words()
    result = parts.result()
    for key, value in whole.result().items():
        assert same(value, result[key]), key


@pytest.mark.slow
def test_a_sharded_run_goes_on_alone_and_is_exported(nursery, dataset, tmp_path):
    """World size and strategy may change on the way; the losses are those of one run."""
    whole = start(nursery, dataset, tmp_path / "whole")
    assert whole.finish() == [0, 0], whole.words()
    two = start(nursery, dataset, tmp_path / "mixed", "trainer.strategy=fsdp", "trainer.updates=2")
    assert two.finish() == [0, 0], two.words()
    one = start(
        nursery,
        dataset,
        tmp_path / "alone",
        f"run_dir={tmp_path / 'mixed/run'}",
        "trainer.updates=4",
        ranks=1,
    )
    assert one.finish() == [0], one.words()
    two.arguments.append("trainer.updates=6")
    assert two.finish() == [0, 0], two.words()
    assert losses(tmp_path / "mixed") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)
    assert export(tmp_path / "mixed/run", tmp_path / "export")["certified"]


@pytest.mark.parametrize("word", ["trainer.compile=True", "trainer.precision=16-mixed"])
def test_what_cannot_be_sharded_is_refused(word):
    with pytest.raises(UsageError, match=f"trainer.strategy=fsdp: expected ddp with {word}"):
        load_config(["data.path=x", "trainer.strategy=fsdp", word])


@pytest.fixture
def mesh():
    """One process that is a group of its own."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.mark.parametrize("first", [True, False])
def test_a_checkpoint_is_gathered_one_tensor_at_a_time(mesh, monkeypatch, first):
    """What each process gathers must fit on its device beside the training; one of them keeps and writes."""
    gather, gathered, written = DTensor.full_tensor, [], []

    def full_tensor(self, **words):
        assert not any(before() is not None for before in gathered)
        tensor = gather(self, **words).clone()
        gathered.append(weakref.ref(tensor))
        return tensor

    monkeypatch.setattr(DTensor, "full_tensor", full_tensor)
    monkeypatch.setattr(Sharded, "is_global_zero", first)
    monkeypatch.setattr(BackgroundWriter, "submit", lambda self, job, state, *_: written.append(state))
    tensors = [torch.arange(6.0) + number for number in range(3)]
    spread = [distribute_tensor(tensor, mesh, [Shard(0)]) for tensor in tensors]
    checkpoint = {"state_dict": {"a": spread[0]}, "optimizer_states": [{"state": {0: spread[1:]}}], "step": 3}
    strategy = Sharded(1, "gloo")
    strategy.checkpoint_io = FolderCheckpoints(keep=1)
    strategy.save_checkpoint(checkpoint, "run/checkpoints/step-000001")
    assert len(gathered) == 3
    if not first:
        assert not written
        return
    (state,) = written
    found = [state["state_dict"]["a"], *state["optimizer_states"][0]["state"][0]]
    for tensor, expected in zip(found, tensors, strict=True):
        assert type(tensor) is torch.Tensor and torch.equal(tensor, expected)
    assert state["step"] == 3
