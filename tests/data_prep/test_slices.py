"""Many processes, one dataset: the same bytes as one run, no shard made twice, a kill costs one shard."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import data_prep.build as building
from data_prep.build import build, build_slice, merge
from data_prep.locks import locked, shard_lock
from data_prep.slices import Slice, parse_slice
from live2diff.errors import DataError, UsageError
from tests.data_prep.fake import FakeChildren, contents, make_sources

ROOT = Path(__file__).parents[2]
SMALL = ["prep=tiny", "sources_per_shard=2", "val_fraction=0.2", "workers=2"]


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setattr(building, "Children", FakeChildren)
    monkeypatch.setattr(FakeChildren, "seen", [])
    monkeypatch.setattr(FakeChildren, "seconds", 0.0)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    return make_sources(tmp_path_factory.mktemp("slices") / "in", 24)


@pytest.fixture(scope="module")
def whole(sources: Path) -> dict[str, bytes]:
    """The dataset as one run makes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "Children", FakeChildren)
        build([str(sources)], sources.parent / "whole", SMALL)
    return contents(sources.parent / "whole")


def slices(sources: Path, out: Path, order, count: int = 4) -> None:
    for index in order:
        build_slice([str(sources)], out, SMALL, Slice(index, count))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 0, 2, 1], [2, 2, 0, 3, 1, 0]])
def test_an_array_of_four_gives_the_bytes_of_one_run(sources, whole, tmp_path, order):
    slices(sources, tmp_path / "out", order)
    summary = merge(tmp_path / "out")
    assert contents(tmp_path / "out") == whole
    assert summary.inputs == 24 == len(FakeChildren.seen)


def test_processes_at_the_same_time_share_the_work(sources, whole, tmp_path):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tests.data_prep.fake", "0.02", str(sources), "--out", str(out), *SMALL]
    parts = [["--slice", f"{index}/2", "--json"] for index in (0, 1, 1)] + [["--json"]]
    runs = [
        subprocess.Popen([*command, *part], cwd=ROOT, stdout=subprocess.PIPE, text=True) for part in parts
    ]
    said = [run.communicate(timeout=60)[0].splitlines() for run in runs]
    assert [run.returncode for run in runs] == [0] * len(runs)
    assert contents(out) == whole
    stems = [event["stem"] for lines in said for event in map(json.loads, lines) if event["event"] == "shard"]
    assert len(stems) == len(set(stems)) == len(list(out.glob("*/clips-*.json")))


def test_a_dataset_that_begins_while_we_look_is_no_stranger(sources, tmp_path, monkeypatch):
    out, listed = tmp_path / "out", Path.iterdir
    out.mkdir()

    def begins_meanwhile(path: Path):
        if path == out:
            monkeypatch.setattr(Path, "iterdir", listed)
            slices(sources, out, [0])  # what another process does at this moment
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", begins_meanwhile)
    slices(sources, out, [1])
    assert listed(out) and (out / "train/clips-000001.json").exists()


def test_merge_names_what_is_missing_and_whose_it_is(sources, tmp_path):
    out = tmp_path / "out"
    slices(sources, out, [0, 2])
    with pytest.raises(
        DataError, match=r"6 of 13 shards .* \(slice 1/4\).* \(slice 3/4\).*run slices 1,3 of 4 again"
    ):
        merge(out)
    assert not (out / "dataset.json").exists() and not (out / "index.parquet").exists()
    with pytest.raises(UsageError, match="no dataset was begun there"):
        merge(tmp_path / "nowhere")


def test_a_slice_lists_nothing_once_the_work_list_is_there(sources, tmp_path, monkeypatch):
    out = tmp_path / "out"
    slices(sources, out, [1])
    monkeypatch.setattr(building, "list_sources", lambda *_, **__: pytest.fail("listed again"))
    slices(sources, out, [2, 3])


def test_slice_0_notices_other_sources(sources, tmp_path):
    copy = make_sources(tmp_path / "in", 6)
    slices(copy, tmp_path / "out", [1, 0], count=2)
    (copy / "new.mp4").write_bytes(b"good new")
    with pytest.raises(UsageError, match=r"other sources: 1 new or changed \(such as in/new.mp4\)"):
        slices(copy, tmp_path / "out", [0], count=2)


def test_a_shard_in_other_hands_is_left_alone_by_a_slice_and_waited_for_by_a_run(sources, whole, tmp_path):
    out = tmp_path / "out"
    slices(sources, out, [0])
    left = shard_lock(out, "train/clips-000001")
    with locked(left, wait=True):
        leftover = out / ".work/train-clips-000001-live"
        leftover.mkdir(parents=True)
        build_slice([str(sources)], out, SMALL, Slice(1, 4))
        assert not (out / "train/clips-000001.json").exists() and leftover.is_dir()
        run = threading.Thread(target=build, args=([str(sources)], out, SMALL))
        run.start()
        for _ in range(2000):
            if len(list(out.glob("*/clips-*.json"))) == 12:
                break
            time.sleep(0.005)
        assert run.is_alive() and not (out / "train/clips-000001.json").exists()
    run.join(20)
    assert contents(out) == whole


def hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def test_kill_minus_nine_at_random_moments_and_rerun(sources, whole, tmp_path, monkeypatch):
    """Forked, so that a moment is one of the work and not of Python's start."""
    monkeypatch.setattr(FakeChildren, "seconds", 0.02)
    out, moments, killed = tmp_path / "out", random.Random(0), 0
    fork = multiprocessing.get_context("fork")
    for _ in range(8):
        run = fork.Process(target=build, args=([str(sources)], out, SMALL))
        run.start()
        run.join(moments.uniform(0.0, 0.2))
        killed += run.is_alive()
        run.kill()
        run.join()
        final = {name: data for name, data in contents(out).items() if not hidden(name)}
        assert final.items() <= whole.items()  # nothing half-written under a final name
    build([str(sources)], out, SMALL)
    assert contents(out) == whole
    assert killed


@pytest.mark.parametrize("text", ["4/4", "-1/4", "1", "a/b", "1/0", "0/0", "1/4/5", ""])
def test_wrong_slices_are_named(text):
    with pytest.raises(UsageError, match="write I/N"):
        parse_slice(text)


def test_every_shard_is_in_one_slice():
    parts = [parse_slice(f"{index}/7") for index in range(7)]
    assert all(sum(part.takes(number) for part in parts) == 1 for number in range(100))


def test_locks_end_with_their_holder(tmp_path):
    path = tmp_path / ".locks/x"
    code = f"""
import pathlib, time
from data_prep.locks import locked
with locked(pathlib.Path({str(path)!r}), wait=True):
    print(1, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdout.readline()
        with locked(path, wait=False) as held:
            assert not held
        os.kill(holder.pid, signal.SIGKILL)
    with locked(path, wait=False) as held:
        assert held
