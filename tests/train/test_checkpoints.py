"""Checkpoints on bad days: a full disk, a folder that cannot be written, rot, and which ones are kept."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from safetensors.torch import load_file

from live2diff.cli import main
from live2diff.errors import DataError, SetupError
from live2diff.files import write_json
from live2diff.runs import checkpoints, damaged_file, is_checkpoint, read_manifest
from tests.train.runs import FAST, run
from tests.train.shards import make_dataset
from train.checkpoints import FolderCheckpoints, SaveCheckpoints, commit, prune
from train.module import Diffusion
from train.pins import pin
from train.resume import set_aside


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("data"), shards=2, clips_per_shard=4)


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def fake(run: Path, updates: int, **facts: float) -> Path:
    """A small complete checkpoint."""
    path = run / "checkpoints" / f"step-{updates:06d}"
    stage = path.with_name(".staged")
    stage.mkdir(parents=True)
    (stage / "weights.safetensors").write_bytes(os.urandom(64))
    commit(stage, path, {"updates": updates, "world": 1, "samples": updates, **facts})
    return path


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """As a disk that fills up: a write beyond `size` bytes of a file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_spares_the_checkpoint_before(dataset, tmp_path, capsys):
    """The weights are 3.6 MB and the optimiser 7.2 MB here: the limit is met in each file, early and late."""
    settings = ["trainer.batch=1", "trainer.save_every=1"]
    assert run(dataset, tmp_path / "run", "trainer.updates=1", *settings) == 0
    before = hashes(tmp_path / "run/checkpoints/step-000001")
    command = ["train", *FAST, f"data.path={dataset}", f"run_dir={tmp_path / 'run'}"]
    for limit in (10_000, 100_000, 3_600_000, 3_700_000, 7_300_000):
        with largest_file(limit):
            assert main([*command, "trainer.updates=2", *settings]) == 5
        told = capsys.readouterr().err
        line = told.strip().splitlines()[-1]
        path = re.escape(str(tmp_path / "run/checkpoints/step-000002"))
        found = re.match(rf"error: {path}: cannot be written \(.+\); it needs ([\d.]+) MB, [\d,.]+ MB", line)
        assert found and 10.8 <= float(found[1]) <= 11.0 and "Traceback" not in told, line
        assert hashes(tmp_path / "run/checkpoints") == before, limit
    assert run(dataset, tmp_path / "run", "trainer.updates=2", *settings) == 0


def test_a_read_only_folder_is_refused_before_anything_is_built(dataset, tmp_path, monkeypatch):
    if os.geteuid() == 0:  # root writes everywhere: a file in the folder's place does the same
        (tmp_path / "run").mkdir()
        (tmp_path / "run/checkpoints").write_text("")
    else:
        (tmp_path / "run").mkdir(mode=0o555)
    monkeypatch.setattr("train.run._task", lambda config: pytest.fail("it was built"))
    with pytest.raises(SetupError, match=r"run\S*: cannot be written \(.*\); give another run_dir"):
        run(dataset, tmp_path / "run")


@pytest.mark.parametrize("second", ["step-000002", "no checkpoint"])
def test_ranks_that_see_different_checkpoints_refuse_together(tmp_path, monkeypatch, second):
    """As on NFS, where a second machine may see the folder of a minute ago."""
    given = []

    def gather(found, name):
        given.append(name)
        found[:] = ["step-000003", second, "step-000003"]

    ranks = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        get_world_size=lambda: 3,
        all_gather_object=gather,
    )
    monkeypatch.setattr("train.checkpoints.distributed", ranks)
    for resumed in (tmp_path / "step-000003", None):
        callback = SaveCheckpoints(tmp_path / "run", 1, FolderCheckpoints(1), resumed, 1)
        with pytest.raises(
            SetupError, match=rf"run/checkpoints: rank 0 sees step-000003, rank 1 sees {second};"
        ):
            callback.setup(MagicMock())
    assert given == ["step-000003", "no checkpoint"]


def test_another_filesystem_for_temporary_files_does_not_matter(dataset, tmp_path, monkeypatch):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second filesystem")
    monkeypatch.setenv("TMPDIR", str(other))
    assert run(dataset, tmp_path / "run", "trainer.updates=1") == 0
    assert is_checkpoint(tmp_path / "run/checkpoints/step-000001")


def test_rot_is_noticed_and_the_checkpoint_before_taken(dataset, tmp_path, capsys):
    settings = ["trainer.batch=1", "trainer.save_every=1", "trainer.keep=3"]
    run(dataset, tmp_path / "run", "trainer.updates=3", *settings)
    expected = load_file(tmp_path / "run/checkpoints/step-000003/weights.safetensors")
    rotten = tmp_path / "run/checkpoints/step-000003/trainer.pt"
    data = bytearray(rotten.read_bytes())
    data[len(data) // 2] ^= 1
    rotten.write_bytes(data)
    capsys.readouterr()
    assert run(dataset, tmp_path / "run", "trainer.updates=3", *settings) == 0
    out = capsys.readouterr().out
    assert "step-000003/trainer.pt is damaged" in out and "after update 2" in out
    last = tmp_path / "run/checkpoints/step-000003"
    assert damaged_file(last) is None
    for name, tensor in load_file(last / "weights.safetensors").items():
        assert torch.equal(tensor, expected[name])


def test_the_newest_and_the_best_are_kept(tmp_path):
    for updates, loss in ((1, 0.5), (2, 0.2), (3, 0.4), (4, 0.3)):
        fake(tmp_path, updates, val_loss=loss)
    prune(tmp_path, keep=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000002", "step-000004"]


def test_a_loss_that_is_no_number_is_not_the_best(tmp_path):
    for updates, loss in ((1, float("nan")), (2, 0.2), (3, 0.4)):
        fake(tmp_path, updates, val_loss=loss)
    prune(tmp_path, keep=1)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000002", "step-000003"]


def test_what_is_damaged_does_not_count_as_newest(tmp_path):
    good, _, damaged = (fake(tmp_path, updates) for updates in (1, 2, 9))
    set_aside(tmp_path, checkpoints(tmp_path)[1])
    assert not damaged.exists() and good.exists()
    written = fake(tmp_path, 3)
    prune(tmp_path, keep=1)
    assert checkpoints(tmp_path) == [written]


def test_what_another_run_builds_on_is_kept(tmp_path):
    """Also when it is damaged and made again, and from however many runs."""
    base, other = fake(tmp_path / "base", 1), tmp_path / "other"
    for user in (other, tmp_path / "third", other):
        pin(base, user)
    notes = [path for path in base.parent.iterdir() if path != base]
    assert sorted(note.read_text() for note in notes) == [f"{other}\n", f"{tmp_path / 'third'}\n"]
    (base / "weights.safetensors").write_bytes(b"short")
    for updates in (1, 2, 3):
        fake(tmp_path / "base", updates)
    prune(tmp_path / "base", keep=1)
    assert [path.name for path in checkpoints(tmp_path / "base")] == ["step-000001", "step-000003"]


def test_a_base_of_someone_else_is_built_on_with_a_warning(tmp_path, monkeypatch, capsys):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("train.pins.staged_file", refuse)
    base = fake(tmp_path / "base", 1)
    pin(base, tmp_path / "other")
    assert re.fullmatch(
        r"warning: \S+/base/checkpoints/\.used-step-000001-\w+: cannot be written \(Permission denied\); "
        r"\S+/base may remove step-000001 when it trains on.*: keep a copy of it\n",
        capsys.readouterr().out,
    )


def test_the_only_whole_one_is_never_removed(tmp_path):
    """A newer folder without a manifest, or with a file cut short, does not count as newer."""
    good = fake(tmp_path, 1)
    cut = fake(tmp_path, 2)
    (cut / "weights.safetensors").write_bytes(b"short")
    bare = fake(tmp_path, 3)
    (bare / "manifest.json").unlink()
    prune(tmp_path, keep=1)
    assert good.exists() and checkpoints(tmp_path) == [good]


def test_the_manifest_names_every_file(dataset, tmp_path):
    run(
        dataset,
        tmp_path / "run",
        "trainer.updates=2",
        "trainer.batch=1",
        "trainer.accumulate=2",
        "trainer.ema=0.5",
    )
    path = tmp_path / "run/checkpoints/step-000002"
    manifest = json.loads((path / "manifest.json").read_text())
    assert {**manifest, "files": sorted(manifest["files"])} == {
        "updates": 2, "micro_steps": 4, "samples": 4, "world": 1,
        "files": ["ema.safetensors", "rank-0000.pt", "trainer.pt", "weights.safetensors"],
    }  # fmt: skip
    write_json(
        path / "manifest.json", {**manifest, "files": {"weights.safetensors": {"bytes": 1, "sha256": ""}}}
    )
    assert not is_checkpoint(path)


def test_the_running_mean_follows_its_formula(dataset, tmp_path):
    settings = ["trainer.batch=1", "trainer.ema=0.9", "trainer.save_every=1", "trainer.keep=9"]
    run(dataset, tmp_path / "run", "trainer.updates=3", *settings)
    folders = checkpoints(tmp_path / "run")
    weights = [load_file(path / "weights.safetensors") for path in folders]
    means = [load_file(path / "ema.safetensors") for path in folders]
    name = next(name for name, value in weights[0].items() if not torch.equal(value, weights[1][name]))
    for update in (2, 3):
        decay = min(0.9, (1 + update) / (10 + update))
        expected = decay * means[update - 2][name] + (1 - decay) * weights[update - 1][name]
        assert torch.allclose(means[update - 1][name], expected, atol=1e-7)
    assert means[0].keys() == weights[0].keys()


def poison(monkeypatch, micro_steps: set[int]) -> None:
    """Make the loss of these micro-steps, counted from 1, infinite."""
    original, steps = Diffusion.loss, []

    def loss(self, batch):
        steps.append(None)
        return original(self, batch) * (float("inf") if len(steps) in micro_steps else 1)

    monkeypatch.setattr(Diffusion, "loss", loss)


def test_an_update_that_is_not_finite_leaves_no_trace(dataset, tmp_path, monkeypatch, capsys):
    settings = ["trainer.batch=1", "trainer.accumulate=2", "trainer.save_every=1", "trainer.keep=9"]
    poison(monkeypatch, {3})  # the first micro-step of update 2
    assert run(dataset, tmp_path / "run", "trainer.updates=3", *settings) == 0
    one, two, three = (load_file(p / "weights.safetensors") for p in checkpoints(tmp_path / "run"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(two[name], three[name]) for name in two)
    assert all(tensor.isfinite().all() for tensor in three.values())
    modes = {file.stat().st_mode for path in checkpoints(tmp_path / "run") for file in path.iterdir()}
    assert len(modes) == 1, "some files cannot be read by those who can read others"
    assert "warning: update 2 is passed over" in capsys.readouterr().out
    state = torch.load(checkpoints(tmp_path / "run")[-1] / "trainer.pt", weights_only=True)
    moments = state["optimizer_states"][0]["state"].values()
    assert all(m["exp_avg"].isfinite().all() and float(m["step"]) == 2 for m in moments)


def test_three_in_a_row_stop_the_run(dataset, tmp_path, monkeypatch):
    poison(monkeypatch, {2, 4, 5, 6})
    with pytest.raises(DataError, match=r"updates 4 to 6: the gradient is not finite; .* look at clips 0\w+"):
        run(dataset, tmp_path / "run", "trainer.updates=9", "trainer.batch=1", "trainer.save_every=1")
    last = checkpoints(tmp_path / "run")[-1]
    assert last.name == "step-000005"
    assert all(tensor.isfinite().all() for tensor in load_file(last / "weights.safetensors").values())


def test_what_was_passed_over_is_known_after_a_restart(dataset, tmp_path, monkeypatch):
    """Two updates in a row, then a restart, then a third: as if there had been no restart."""
    words = ["trainer.batch=1", "trainer.save_every=1", "trainer.log_every=1"]
    poison(monkeypatch, {2, 3, 4})
    run(dataset, tmp_path / "run", "trainer.updates=3", *words)
    with pytest.raises(DataError, match="updates 2 to 4: the gradient is not finite"):
        run(dataset, tmp_path / "run", "trainer.updates=9", *words)
    with open(tmp_path / "run/metrics.csv") as file:
        assert [row["skipped"] for row in csv.DictReader(file)] == ["0", "1", "2"]


def test_a_checkpoint_without_those_counts_can_be_gone_on_from(dataset, tmp_path):
    words = ["trainer.batch=1", "trainer.save_every=1"]
    run(dataset, tmp_path / "run", "trainer.updates=1", *words)
    last = checkpoints(tmp_path / "run")[-1]
    state = torch.load(last / "trainer.pt", weights_only=True)
    assert state.pop("callbacks")
    torch.save(state, last / "trainer.pt")
    facts = {k: v for k, v in read_manifest(last).items() if k != "files"}
    (last / "manifest.json").unlink()
    stage = last.rename(last.with_name("old"))
    commit(stage, last, facts)
    assert run(dataset, tmp_path / "run", "trainer.updates=2", *words) == 0
