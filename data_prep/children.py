"""The parent's side of the child processes: start one per source, wait, kill it at the time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any

from data_prep.config import PrepConfig
from live2diff.errors import SetupError

EXIT_MACHINE = 74  # of a child: the machine failed, not the file (EX_IOERR of sysexits.h)


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
            SetupError: the machine failed (disk full, no permission), not the file.
        """
        job = {"path": path, "folder": str(folder), "parent": os.getpid(), "config": asdict(self._config)}
        child = self._start()
        try:
            _, errors = child.communicate(json.dumps(job).encode(), timeout=self._config.timeout_s)
        except subprocess.TimeoutExpired:
            return {"rejected": f"takes too long: more than {self._config.timeout_s:g} s"}
        finally:
            self._end(child)
        if child.returncode == 0:
            return json.loads((folder / "result.json").read_text(encoding="utf-8"))
        words = errors.decode("utf-8", "replace").strip().splitlines()
        last = words[-1] if words else f"exit code {child.returncode}"
        if child.returncode == EXIT_MACHINE or last.startswith(("ModuleNotFoundError", "ImportError")):
            raise SetupError(f"{folder}: {last}; mend this and run the same command again")
        return {"rejected": _ending(child.returncode, last)}

    def stop(self) -> None:
        """Kill every child; later calls of `run` start none."""
        with self._lock:
            self._stopped = True
            for child in self._running:
                _kill(child)

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
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment,
                start_new_session=True,
            )
            self._running.add(child)
        return child

    def _end(self, child: subprocess.Popen) -> None:
        _kill(child)
        child.communicate()
        with self._lock:
            self._running.discard(child)


def _kill(child: subprocess.Popen) -> None:
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _ending(code: int, last: str) -> str:
    """Why a child that left no result ended."""
    if code == -signal.SIGKILL:
        return "killed by the system: out of memory?"
    if code < 0:
        return f"crashes the decoder: {signal.Signals(-code).name}"
    return f"cannot be processed: {last}"
