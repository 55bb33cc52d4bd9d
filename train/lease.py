"""RUN/lease.json: which process trains in a run folder. Two at once would remove each other's checkpoints.

Rank 0 makes the file before anything else in the folder is touched, sets its time anew while it trains, and
removes it at the end. One that was killed leaves it behind; it counts for nothing

    at once             where its process ran on this machine and is gone
    at once             where SLURM has put its job back into the queue: this is the same job, started again
    after 180 seconds   without a new time. NFS shows a file's time up to 60 seconds late, and a thread may
                        wait for an interpreter that is busy: nine new times have to be missed.

A process that was suspended for so long may find that another has taken over: see `check_lease`. No lock of
the system is used: many clusters mount their disks without, or with locks that hold on one machine alone.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from live2diff.errors import SetupError
from train.signals import SIGNALS

_REFRESH, _STALE = 20, 180  # seconds


@dataclass(frozen=True)
class Holder:
    """A process that trains.

    Attributes:
        machine: the boot of a machine and the process numbers that count there (of a container, say).
        started: when the process began, in the machine's ticks: process numbers are used again.
        job, restarts: of SLURM.
    """

    host: str
    machine: str
    pid: int
    started: str
    job: str
    restarts: int
    since: str

    def same_process(self, other: Holder) -> bool:
        return all(getattr(self, key) == getattr(other, key) for key in ("host", "machine", "pid", "started"))

    def __str__(self) -> str:
        job = f", SLURM job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}, since {self.since}"


@contextmanager
def lease(run: Path, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Keep every other process from training in `run`; folders that are still empty then go again.

    Raises:
        SetupError: another one trains there; or the folder cannot be written to.
    """
    path, me, done = _file(run), _myself(environ), threading.Event()
    made = [folder for folder in (run, *run.parents) if not folder.exists()]
    try:
        run.mkdir(parents=True, exist_ok=True)
        _take(path, me)
    except OSError as error:
        raise SetupError(f"{path}: cannot be written ({error.strerror}); give another run_dir") from error
    refresher = threading.Thread(target=_refresh, args=(path, me, done), name="lease", daemon=True)
    refresher.start()
    try:
        yield
    finally:
        done.set()
        refresher.join()
        with suppress(OSError):
            if _read(path)[0] == me:
                path.unlink()
            for folder in made:
                folder.rmdir()


def check_lease(run: Path) -> None:
    """Refuse to go on writing into a folder where another process trains by now.

    Raises:
        SetupError: it names that process.
    """
    try:
        holder, _ = _read(_file(run))
    except OSError:
        return
    if holder and not holder.same_process(_myself({})):
        raise SetupError(
            f"{run}: {holder} has taken over this run, while this process was suspended or cut off from its "
            "disk; it ends without saving"
        )


def _file(run: Path) -> Path:
    return run / "lease.json"


def _take(path: Path, me: Holder) -> None:
    while True:
        try:
            with open(path, "x", encoding="utf-8") as file:  # of several at once, one makes it
                json.dump(asdict(me), file)
            return
        except FileExistsError:
            pass
        except OSError:  # a full disk: half a file would keep the next start out
            path.unlink(missing_ok=True)
            raise
        with suppress(FileNotFoundError):  # given back meanwhile
            holder, time = _read(path)
            age = _now(path.parent) - time
            if not _is_over(holder, me, age):
                raise SetupError(
                    f"{path.parent}: is trained by {holder or 'another process'}, last seen {age:.0f} s "
                    "ago; let that one finish or end it. If it was killed on another machine, run this "
                    f"command again {_STALE} s after it was last seen"
                )
            path.unlink()


def _read(path: Path) -> tuple[Holder | None, float]:
    """Who holds the lease, None where the file does not say, and the time of the file in seconds."""
    with open(path, "rb") as file:  # opened: NFS then asks the server for the time
        words, time = file.read(), os.fstat(file.fileno()).st_mtime
    try:
        holder = Holder(**json.loads(words))
        return replace(holder, pid=int(holder.pid), restarts=int(holder.restarts)), time
    except (ValueError, TypeError):
        return None, time


def _now(folder: Path) -> float:
    """By the clock of the disk: those of two machines may differ."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        return os.fstat(probe.fileno()).st_mtime


def _is_over(holder: Holder | None, me: Holder, age: float) -> bool:
    if age > _STALE:
        return True
    if holder is None:
        return False
    here = bool(me.machine) and holder.machine == me.machine
    again = bool(me.job) and holder.job == me.job and me.restarts > holder.restarts
    return again or here and (holder.same_process(me) or _is_gone(holder))


def _is_gone(holder: Holder) -> bool:
    try:
        os.kill(holder.pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's: it may not be seen in /proc
        return False
    return _started(holder.pid) != holder.started


def _myself(environ: Mapping[str, str]) -> Holder:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        machine = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux: only time tells
        machine = ""
    restarts = environ.get("SLURM_RESTART_COUNT", "0")
    return Holder(
        host=os.uname().nodename,
        machine=machine,
        pid=os.getpid(),
        started=_started(os.getpid()),
        job=environ.get("SLURM_JOB_ID", ""),
        restarts=int(restarts) if restarts.isdecimal() else 0,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _started(pid: int) -> str:
    """When a process began; empty for one that is gone, or dead and not yet waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _refresh(path: Path, me: Holder, done: threading.Event) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they are the main thread's: see `held_back`
    while not done.wait(_REFRESH):
        with suppress(OSError):
            if _read(path)[0] == me:
                os.utime(path)
