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
    # A library that is refused memory may also crash.
    assert "memory" in result["rejected"] or "crashes the decoder" in result["rejected"]


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
    path = movie("a.mp4", blocks(1500, 0, (320, 240)))
    code = (
        "from pathlib import Path\n"
        "from data_prep.children import Children\n"
        "from data_prep.config import load_config\n"
        f"Children(load_config(['prep=tiny'])).run({str(path)!r}, Path({str(tmp_path)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL) as parent:
        assert wait_until(lambda: children_of(parent.pid))
        (child,) = children_of(parent.pid)
        time.sleep(0.6)  # into its work
        assert alive(child)
        parent.send_signal(how)
        assert parent.wait(10) != 0
        assert wait_until(lambda: not alive(child), 5)


class Scripted(Children):
    """Children that run a Python script instead of the worker."""

    def __init__(self, config, script: str):
        super().__init__(config)
        self._script = script

    def _start(self) -> subprocess.Popen:
        command = [sys.executable, "-c", f"import os, sys, time\nsys.stdin.read()\n{self._script}"]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)


BEATING = "for _ in range(8): os.write(1, b'.'); time.sleep(0.25)\n"


def test_a_child_that_hangs_is_killed_and_one_that_goes_on_is_not(tmp_path, tiny):
    config = replace(tiny, stall_s=1.0, timeout_s=None)
    (tmp_path / "result.json").write_text('{"clips": []}')
    start = time.monotonic()
    assert Scripted(config, BEATING).run("x", tmp_path) == {"clips": []}
    assert time.monotonic() - start > 1.5  # longer than a stall
    for hangs in (
        "os.write(1, b'.'); time.sleep(60)",
        "os.write(1, b'.')\nwhile True: os.write(2, b'words'); time.sleep(0.1)",
        "os.write(1, b'.'); os.close(1); time.sleep(60)",
        "os.write(1, b'.'); os.close(1); os.close(2); time.sleep(60)",
    ):
        start = time.monotonic()
        assert Scripted(config, hangs).run("x", tmp_path) == {"rejected": "hangs: no frame for 1 s"}
        assert time.monotonic() - start < 10
    late = Scripted(replace(config, timeout_s=1.0), BEATING).run("x", tmp_path)
    assert late == {"rejected": "takes too long: more than 1 s"}


def test_a_child_that_is_slow_to_start_is_waited_for(tmp_path, tiny, monkeypatch):
    """Loading libraries takes long on a busy machine: no fault of the file, nor a reason for ever."""
    (tmp_path / "result.json").write_text('{"clips": []}')
    slow = "time.sleep(2); os.write(1, b'.')"
    assert Scripted(replace(tiny, stall_s=0.5), slow).run("x", tmp_path) == {"clips": []}
    monkeypatch.setattr("data_prep.children._START_S", 0.5)
    with pytest.raises(SetupError, match="did not start within 0.5 s; the machine is overloaded"):
        Scripted(replace(tiny, stall_s=0.5), "time.sleep(9)").run("x", tmp_path)


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGHUP"])
def test_a_child_ended_from_outside_says_nothing_of_the_file(tmp_path, tiny, name):
    ended = f"import signal; os.write(1, b'.'); os.kill(os.getpid(), signal.{name})"
    with pytest.raises(SetupError, match=f"x: its child process was ended from outside .{name}"):
        Scripted(tiny, ended).run("x", tmp_path)


def test_a_file_that_blocks_its_reader_is_a_reason(tmp_path, tiny):
    os.mkfifo(tmp_path / "x.mp4")
    before = children_of(os.getpid())
    result = Children(replace(tiny, stall_s=1.5)).run(str(tmp_path / "x.mp4"), tmp_path)
    assert result == {"rejected": "hangs: no frame for 1.5 s"}
    assert children_of(os.getpid()) <= before


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("data_prep.shots.split_shots = None", "TypeError: 'NoneType' object is not callable"),
        ("data_prep.shots.CutDetector.see = lambda *_: 1 / 0", "ZeroDivisionError: division by zero"),
        ("del data_prep.shots.split_shots", "cannot import name"),
    ],
)
def test_a_bug_of_ours_stops_the_run_and_is_no_fault_of_the_file(
    movie, tmp_path, tiny, monkeypatch, broken: str, words: str
):
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(f"import data_prep.shots\n{broken}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    path = str(movie("a.mp4", blocks(60, 0)))
    with pytest.raises(SetupError, match=words) as caught:
        Children(tiny).run(path, tmp_path)
    assert "\n" not in str(caught.value) and (path in str(caught.value) or "import" in words)


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        ("raise MemoryError", "needs too much memory: more than 4096 MiB"),
        ("raise av.error.InvalidDataError(1, 'bad bits')", "cannot be processed: bad bits"),
        ("cv2.resize(None, (0, 0))", "cannot be processed: OpenCV"),
    ],
)
def test_what_libraries_raise_on_strange_frames_is_a_reason(
    movie, tmp_path, tiny, monkeypatch, fails: str, reason: str
):
    (tmp_path / "site").mkdir()
    code = (
        f"import av, cv2, data_prep.shots\ndef see(*_):\n    {fails}\ndata_prep.shots.CutDetector.see = see\n"
    )
    (tmp_path / "site/sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    result = Children(tiny).run(str(movie("a.mp4", blocks(60, 0))), tmp_path)
    assert result["rejected"].startswith(reason)
