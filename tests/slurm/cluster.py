"""A real SLURM cluster on one machine: a controller and two node daemons, each with its own host name.

Needs root on Debian with `slurm-wlm` and `munge` installed. Everything it writes is below one folder, and it
ends every process that it started. The nodes share one network stack and see no GPU; CPU and memory limits
are accepted but not enforced.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

NODES = ("n1", "n2")
TOOLS = ("slurmctld", "slurmd", "munged", "munge", "sbatch", "scontrol", "unshare")
_PORT = 17817

_CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job is held back
AuthInfo=socket={folder}/munge/munged.sock,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1000
# more CPUs than there are
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,sched_min_interval=200000,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=30
UnkillableStepTimeout=120
MinJobAge=3600
SlurmdTimeout=60
{nodes}
PartitionName=main Nodes=ALL Default=YES DefaultTime=30 PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=ALL DefaultTime=30 PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=lowgrace Nodes=ALL DefaultTime=30 PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=ALL DefaultTime=30 PriorityTier=100 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"needs {', '.join(absent)} (Debian: slurm-wlm, munge)" if absent else None


class Cluster:
    """Use as a context manager; `environment` goes to every command that talks to it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "etc/slurm.conf")}
        for name in [name for name in self.environment if name.startswith(("SLURM_JOB", "SLURM_STEP"))]:
            del self.environment[name]
        self._daemons: list[tuple[str, str]] = []  # (pid file, name)

    def __enter__(self) -> Cluster:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(Exception):
            self.run("scancel", "--full", "--signal=KILL", "--state=RUNNING", check=False)
            self.run("scancel", "--user=root", check=False)
            wait(lambda: not self.run("squeue", "-h"), 30)
        for pid_file, name in reversed(self._daemons):
            _end(self.folder / pid_file, name)

    def run(self, *command: str, check: bool = True, **environment: str) -> str:
        """Standard output of a command on the cluster; raises AssertionError when it fails."""
        done = subprocess.run(
            command, env={**self.environment, **environment}, capture_output=True, text=True, timeout=120
        )
        if check:
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """`scontrol show job`, by key."""
        from train.requeue import parse_job

        return parse_job(self.run("scontrol", "show", "job", number, "--oneliner"))

    def wait_for(self, number: str, *states: str, seconds: float = 240) -> str:
        """Wait until job `number` is in one of `states`; returns it."""
        wait(lambda: self.job(number)["JobState"] in states, seconds, lambda: str(self.job(number)))
        return self.job(number)["JobState"]

    def _start(self) -> None:
        folder = self.folder
        for name in ("etc", "log", "state", "run", "munge", *(f"spool/{node}" for node in NODES)):
            (folder / name).mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        key = folder / "munge/munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        nodes = "\n".join(
            f"NodeName={node} NodeHostname={node} NodeAddr=127.0.0.{11 + i} Port={_PORT + 1 + i} "
            "CPUs=16 RealMemory=64000 State=UNKNOWN"
            for i, node in enumerate(NODES)
        )
        host = socket.gethostname().split(".")[0]
        config = _CONFIG.format(folder=folder, host=host, port=_PORT, nodes=nodes)
        (folder / "etc/slurm.conf").write_text(config.lstrip())
        names = "".join(f"127.0.0.{11 + i} {node}\n" for i, node in enumerate(NODES))
        (folder / "etc/hosts").write_text(Path("/etc/hosts").read_text() + names)

        munge = folder / "munge"
        self._daemons.append(("munge/munged.pid", "munged"))
        self.run(
            "munged", "--force", f"--socket={munge}/munged.sock", f"--key-file={key}",
            f"--pid-file={munge}/munged.pid", f"--log-file={munge}/munged.log",
            f"--seed-file={munge}/munged.seed",
        )  # fmt: skip
        self._daemons.append(("run/slurmctld.pid", "slurmctld"))
        self.run("slurmctld", "-f", str(folder / "etc/slurm.conf"))
        for node in NODES:
            self._daemons.append((f"run/slurmd.{node}.pid", "slurmd"))
            # Its own host name and its own idea of who is who: processes then meet on the first node by name.
            script = (
                'hostname "$1" && mount --bind "$2/etc/hosts" /etc/hosts && '
                'exec slurmd -N "$1" -f "$2/etc/slurm.conf"'
            )
            daemon = ["unshare", "--mount", "--uts", "sh", "-c", script, "sh", node, str(folder)]
            subprocess.run(
                daemon, env=self.environment, check=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        wait(lambda: self.run("sinfo", "-h", "-N", "-p", "main", "-t", "idle", "-o", "%N", check=False)
             .split() == list(NODES), 60)  # fmt: skip


def wait(holds: Callable[[], bool], seconds: float, what: Callable[[], str] = lambda: "") -> None:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:g} s in vain {what()}")
        time.sleep(0.25)


def _end(pid_file: Path, name: str) -> None:
    for pid in _pid(pid_file, name):
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            with suppress(AssertionError):
                wait(lambda: not list(_pid(pid_file, name)), 15)
                return


def _pid(pid_file: Path, name: str) -> Iterator[int]:
    """The process of a pid file, if it still lives and is what it says."""
    with suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        _, comm, rest = re.split(r"\((.*)\) ", Path(f"/proc/{pid}/stat").read_text())
        if comm == name and rest[0] != "Z":
            yield pid
