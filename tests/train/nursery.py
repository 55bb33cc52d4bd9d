"""Starts training runs cheaply, and lets them die at a named point.

A process that has imported everything, and computed nothing, is forked for every run: what costs seconds is
done once. Talks JSON lines on its standard streams; see `Nursery`.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

# name -> (module, what to replace, whether the process dies after it instead of before, at which visit).
# Every visit is one after the first checkpoint of `test_kill`, which has 6 updates of two micro-steps and
# saves every second one: so there is something to go on from.
POINTS = {
    "in a step": ("train.module", "Diffusion.loss", False, 8),
    "after a backward": ("train.module", "Diffusion.on_after_backward", False, 8),
    "before the optimiser's step": ("torch.optim", "Adam.step", False, 4),
    "after the optimiser's step": ("torch.optim", "Adam.step", True, 4),
    "in the running mean": ("train.ema", "Ema.on_train_batch_end", True, 8),
    "in a validation": ("train.validation", "Validation.loss", True, 2),
    "in a validation video": ("train.validation_video", "_write", True, 2),
    "in metrics.csv": ("train.report", "CsvLogger.log_metrics", True, 6),
    "in the sample log": ("train.sample_log", "SampleLog.on_train_batch_end", True, 8),
    "before the rank's file": ("train.checkpoints", "save_rank_state", False, 2),
    "staging the weights": ("train.checkpoints", "save_file", False, 3),
    "staging the optimiser": ("torch", "save", True, 4),
    "fsync": ("train.checkpoints", "fsync", False, 8),
    "before the manifest": ("train.checkpoints", "write_json", False, 2),
    "after the manifest, before the rename": ("train.checkpoints", "write_json", True, 2),
    "after the rename": ("pathlib", "Path.rename", True, 2),
    "pruning": ("train.checkpoints", "prune", False, 2),
}
PER_MICRO_STEP = {"in a step", "after a backward", "in the running mean", "in the sample log"}


class Nursery:
    """The parent's side. `start` a run, `wait` for it."""

    def __enter__(self) -> Nursery:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.train.nursery"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def start(
        self, arguments: list[str], log: Path, point: str | None = None, at: int = 1, **env: str
    ) -> int:
        """Start `live2diff train`; it dies at the `at`-th visit of `point`. Returns its process number."""
        return self._ask({"arguments": arguments, "log": str(log), "point": point, "at": at, "env": env})

    def wait(self, pid: int, seconds: float = 240) -> int:
        """The exit code of a run; minus the signal that killed it. A run that hangs is killed: -9."""
        return self._ask({"wait": pid, "seconds": seconds})

    def _ask(self, question: dict[str, Any]) -> int:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


def _main() -> None:
    for module in {module for module, *_ in POINTS.values()}:
        importlib.import_module(module)
    for module in ("lightning", "diffusers", "transformers", "train.data", "live2diff.model.build"):
        importlib.import_module(module)
    for line in sys.stdin:
        job = json.loads(line)
        answer = _wait(job["wait"], job["seconds"]) if "wait" in job else _fork(job)
        print(answer, flush=True)


def _fork(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()  # its loader workers die with it
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(0)
    os.environ.update(job["env"])
    code = 1
    try:
        if job["point"]:
            _die_at(job["point"], job["at"])
        from live2diff.cli import main

        code = main(["train", *job["arguments"]])
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def _die_at(point: str, at: int) -> None:
    module, name, after, _ = POINTS[point]
    *path, last = name.split(".")
    owner: Any = importlib.import_module(module)
    for part in path:
        owner = getattr(owner, part)
    original, visits = getattr(owner, last), []

    def replaced(*args: Any, **kwargs: Any) -> Any:
        visits.append(None)
        if len(visits) != at:
            return original(*args, **kwargs)
        if after:
            original(*args, **kwargs)
        os.killpg(0, signal.SIGKILL)

    setattr(owner, last, replaced)


def _wait(pid: int, seconds: float) -> int:
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.02)


if __name__ == "__main__":
    _main()
