"""The parent's side of the child processes: start one per source, wait, kill it when it hangs."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from math import inf
from pathlib import Path
from threading import Lock
from typing import Any

from data_prep.config import PrepConfig
from live2diff.errors import SetupError

# Exit codes of a child whose failure is not the file's (as in sysexits.h).
EXIT_BUG = 70
EXIT_MACHINE = 74
_START_S = 180.0  # for a child to load its libraries
# Signals that a file can provoke; any other came from outside, and says nothing about the file.
_BY_THE_FILE = (
    signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSYS,
    signal.SIGXCPU,
)  # fmt: skip


class Children:
    """Runs sources in child processes; safe to use from several threads.

    A child is its own process group, so that Ctrl-C reaches the parent only, and dies with the parent.
    """

    def __init__(self, config: PrepConfig):
        self._config = config
        self._running: set[subprocess.Popen] = set()
        self._lock = Lock()
        self._stopped = False

    def run(self, path: str, folder: Path) -> dict[str, Any]:
        """Process one source in a child, which writes its clip files into `folder`.

        Returns:
            The child's result (see `worker.process`), or `{"rejected": reason}` if it was killed or died.

        Raises:
            SetupError: the machine failed (disk full, no permission, a missing package) or this program has
                a bug; the file is not to blame.
        """
        job = {"path": path, "folder": str(folder), "parent": os.getpid(), "config": asdict(self._config)}
        child = self._start()
        try:
            assert child.stdin is not None
            with suppress(BrokenPipeError), child.stdin as pipe:  # broken: it ended at once, for a reason
                pipe.write(json.dumps(job).encode())
            late, errors = self._watch(child)
        finally:
            self._end(child)
        if late:
            return {"rejected": late}
        if child.returncode == 0:
            return json.loads((folder / "result.json").read_text(encoding="utf-8"))
        if -child.returncode in _BY_THE_FILE:
            return {"rejected": f"crashes the decoder: {signal.Signals(-child.returncode).name}"}
        if child.returncode < 0 and self._stopped:
            return {"rejected": "the build was stopped"}  # nobody waits for this any more
        if child.returncode < 0:
            name = signal.Signals(-child.returncode).name
            raise SetupError(
                f"{path}: its child process was ended from outside ({name}); if the machine ran out of "
                "memory, set fewer workers or a smaller memory_mb, and run the same command again"
            )
        words = errors.decode("utf-8", "replace").strip().splitlines()
        last = words[-1] if words else f"exit code {child.returncode}"
        if child.returncode == EXIT_MACHINE or last.startswith(("ModuleNotFoundError", "ImportError")):
            raise SetupError(f"{folder}: {last}; mend this and run the same command again")
        raise SetupError(f"{path}: {last}; a bug in data_prep, not a fault of the file: please report it")

    def stop(self) -> None:
        """Kill every child; later calls of `run` start none."""
        with self._lock:
            self._stopped = True
            for child in self._running:
                _kill(child)

    def _watch(self, child: subprocess.Popen) -> tuple[str | None, bytes]:
        """Wait for the child to end; returns (why it has to be killed, or None; the end of what it said)."""
        assert child.stdout is not None and child.stderr is not None
        beats, errors = child.stdout.fileno(), child.stderr.fileno()
        stall, limit = self._config.stall_s, self._config.timeout_s
        hangs, words = f"hangs: no frame for {stall:g} s", b""
        now = time.monotonic()
        # Until the first sign of life it loads its libraries, which a busy machine or a cold disk makes slow.
        started, stalled = False, now + max(stall, _START_S)
        end = inf if limit is None else now + limit
        with selectors.DefaultSelector() as pipes:
            pipes.register(beats, selectors.EVENT_READ)
            pipes.register(errors, selectors.EVENT_READ)
            while pipes.get_map():
                for key, _ in pipes.select(max(0.0, min(stalled, end) - now)):
                    data = os.read(key.fd, 65536)
                    if not data:
                        pipes.unregister(key.fd)
                    elif key.fd == errors:
                        words = (words + data)[-65536:]
                    else:
                        started, stalled = True, time.monotonic() + stall
                now = time.monotonic()
                if now >= end:
                    return f"takes too long: more than {limit:g} s", words
                if now >= stalled and not started:
                    raise SetupError(
                        f"a child process did not start within {_START_S:g} s; the machine is overloaded: "
                        "set fewer workers and run the same command again"
                    )
                if now >= stalled:
                    return hangs, words
        try:
            child.wait(stall)  # both pipes are closed: it has ended, or is about to
        except subprocess.TimeoutExpired:
            return hangs, words
        return None, words

    def _start(self) -> subprocess.Popen:
        # The packages are found even when they are not installed and the build runs in another folder.
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        with self._lock:
            if self._stopped:
                raise RuntimeError("the build is being stopped")
            child = subprocess.Popen(
                [sys.executable, "-m", "data_prep.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
            self._running.add(child)
        return child

    def _end(self, child: subprocess.Popen) -> None:
        _kill(child)
        with child:  # waits, and closes the pipes
            pass
        with self._lock:
            self._running.discard(child)


def _kill(child: subprocess.Popen) -> None:
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
