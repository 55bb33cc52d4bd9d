"""Full disks, read-only targets, kills: a clear error, earlier shards intact, the same bytes in the end."""

import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from live2diff.toy import write_videos
from tests.data_prep.fake import contents, make_sources

ROOT = Path(__file__).parents[2]
SMALL = ["prep=tiny", "sources_per_shard=4", "val_fraction=0", "workers=2"]


def run(sources: Path, out: Path, *, most_bytes: int = 0, fake: bool = True) -> subprocess.CompletedProcess:
    """A build in a process of its own, whose files may not grow beyond `most_bytes`."""
    module = ["tests.data_prep.fake", "0"] if fake else ["data_prep"]
    return subprocess.run(
        [sys.executable, "-m", *module, str(sources), "--out", str(out), *SMALL],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes,) * 2))
        if most_bytes
        else None,
    )


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Two shards of small clips, then one of large ones."""
    folder = make_sources(tmp_path / "in", 8)
    for number in range(4):
        (folder / f"large {number}.mp4").write_bytes(b"good %d" % number + b"x" * 600)
    return folder


@pytest.fixture
def whole(sources: Path, tmp_path: Path) -> dict[str, bytes]:
    assert run(sources, tmp_path / "whole").returncode == 0
    return contents(tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 200 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", disk]).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def told(done: subprocess.CompletedProcess, *words: str) -> None:
    """The process ended with code 5 and one line of error with these words."""
    errors = [line for line in done.stderr.splitlines() if not line.startswith("files:")]
    assert done.returncode == 5 and len(errors) == 1, done.stderr
    assert all(word in errors[0] for word in ("error: ", *words)), errors[0]


def intact(out: Path, whole: dict[str, bytes], shards: range) -> None:
    """So many shards are there, none other than it should be, and nothing is half-written."""
    left = contents(out)
    assert sum(name.endswith(".json") and "clips-" in name for name in left) in shards
    assert not any(".staged-" in name for name in left)
    assert {name: data for name, data in left.items() if not name.startswith(".")}.items() <= whole.items()


def test_a_file_that_may_not_grow(sources: Path, whole: dict[str, bytes], tmp_path: Path):
    out = tmp_path / "out"
    told(
        run(sources, out, most_bytes=70_000), f"{out}/train/clips-000002.tar: File too large", "run the same"
    )
    intact(out, whole, shards=range(2, 3))
    assert run(sources, out).returncode == 0
    assert contents(out) == whole


def test_a_full_disk(sources: Path, whole: dict[str, bytes], small_disk: Path):
    out = small_disk / "out"
    told(run(sources, out), f"{out}/", "No space left on device", "run the same command again")
    intact(out, whole, shards=range(1, 3))  # work on the next one takes space too
    subprocess.run(["mount", "-o", "remount,size=2m", small_disk], check=True)
    assert run(sources, out).returncode == 0
    assert contents(out) == whole


def test_a_read_only_target(sources: Path, whole: dict[str, bytes], small_disk: Path):
    out = small_disk / "out"
    run(sources, out)
    before = contents(out)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    told(run(sources, out), str(out), "Read-only file system")
    told(run(sources, small_disk / "new"), str(small_disk / "new"), "Read-only file system")
    assert contents(out) == before


@pytest.mark.slow
def test_twenty_kills_with_real_children(tmp_path: Path):
    """Kill -9 at random moments from Python's start to the index, until 20 have hit; then rerun."""
    write_videos(tmp_path / "in", 24, seconds=3, fps=8, size=(64, 64), depth=False)
    assert run(tmp_path / "in", tmp_path / "whole", fake=False).returncode == 0
    whole, out = contents(tmp_path / "whole"), tmp_path / "out"
    command = [sys.executable, "-m", "data_prep", str(tmp_path / "in"), "--out", str(out), *SMALL]
    moments, kills = random.Random(0), 0
    while kills < 20:
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as build:
            assert build.stdout
            if moments.random() < 0.7:  # not while it starts, which takes longer than the work
                build.stdout.readline()
            time.sleep(moments.uniform(0.0, 2.0))
            if build.poll() is None:
                build.kill()
                kills += 1
        final = {name: data for name, data in contents(out).items() if "/." not in f"/{name}"}
        assert final.items() <= whole.items()
        if "dataset.json" in final:
            for path in (*out.glob("*/clips-*"), out / "dataset.json"):
                path.unlink()  # and begin again
    assert run(tmp_path / "in", out, fake=False).returncode == 0
    assert contents(out) == whole
