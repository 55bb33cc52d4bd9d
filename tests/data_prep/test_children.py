"""A child may hang, crash or run out of memory; its parent goes on, and no child is left over."""

import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from data_prep.children import Children
from live2diff.errors import SetupError
from tests.data_prep.videos import blocks

ROOT = Path(__file__).parents[2]


def children_of(pid: int) -> set[int]:
    """Process ids of the children of `pid` (Linux)."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found |= {int(word) for word in task.read_text().split()}
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(holds, seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_a_child_reports_clips(movie, tmp_path, tiny):
    result = Children(tiny).run(str(movie("a ü.mp4", blocks(60, 0))), tmp_path)
    assert [clip["frames"] for clip in result["clips"]] == [20]
    assert (tmp_path / result["clips"][0]["file"]).is_file()


def test_a_child_starts_without_torch():
    code = "import sys, data_prep.worker; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_child_that_takes_too_long_is_killed(movie, tmp_path, tiny):
    before = children_of(os.getpid())
    start = time.monotonic()
    result = Children(replace(tiny, timeout_s=0.2)).run(str(movie("a.mp4", blocks(400, 0))), tmp_path)
    assert result == {"rejected": "takes too long: more than 0.2 s"}
    assert time.monotonic() - start < 5
    assert children_of(os.getpid()) <= before


def test_a_child_that_dies_is_a_reason(movie, tmp_path, tiny):
    """Whatever kills it: here a signal from outside, as a crash in the decoder would."""
    children, results = Children(tiny), []
    before = children_of(os.getpid())
    path = str(movie("a.mp4", blocks(400, 0)))
    thread = Thread(target=lambda: results.append(children.run(path, tmp_path)))
    thread.start()
    assert wait_until(lambda: children_of(os.getpid()) - before)
    os.kill((children_of(os.getpid()) - before).pop(), signal.SIGSEGV)
    thread.join()
    assert results == [{"rejected": "crashes the decoder: SIGSEGV"}]


@pytest.mark.skipif(sys.platform != "linux", reason="address-space limits are enforced on Linux only")
def test_memory_is_limited(movie, tmp_path, tiny):
    path = movie("large.mp4", blocks(20, 0, (2048, 2048)))
    result = Children(replace(tiny, memory_mb=256)).run(str(path), tmp_path)
    assert "memory" in result["rejected"]


def test_a_machine_that_cannot_write_is_no_fault_of_the_file(movie, tmp_path, tiny):
    path = str(movie("a.mp4", blocks(60, 0, (320, 240))))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, hard))  # inherited by the child: its disk is full
    try:
        with pytest.raises(SetupError, match="cannot write"):
            Children(tiny).run(path, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_stop_kills_what_runs(movie, tmp_path, tiny):
    children = Children(tiny)
    before = children_of(os.getpid())
    path = str(movie("a.mp4", blocks(600, 0)))
    thread = Thread(target=children.run, args=(path, tmp_path))
    thread.start()
    assert wait_until(lambda: children_of(os.getpid()) - before)
    children.stop()
    thread.join(5)
    assert not thread.is_alive() and children_of(os.getpid()) <= before
    with pytest.raises(RuntimeError):
        children.run(path, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_child_outlives_the_run(movie, tmp_path, how):
    movie("a.mp4", blocks(1500, 0, (320, 240)))
    command = [sys.executable, "-m", "data_prep", str(tmp_path / "videos"), "--out", str(tmp_path / "out")]
    with subprocess.Popen([*command, "prep=tiny"], cwd=ROOT, stderr=subprocess.DEVNULL) as parent:
        assert wait_until(lambda: children_of(parent.pid))
        (child,) = children_of(parent.pid)
        time.sleep(0.6)  # into its work
        assert alive(child)
        parent.send_signal(how)
        assert parent.wait(10) != 0
        assert wait_until(lambda: not alive(child), 5)
    assert not (tmp_path / "out/dataset.json").exists()
