"""SLURM: put the job back into the queue when it was warned of its end.

Which signal means what, read off a real cluster (`tests/slurm`):

    USR1, USR2   `sbatch --signal`: the time limit is near. The job is put back by us.
    TERM         Pre-emption with a grace time: the job's state is still RUNNING and PreemptTime is set. A job
                 that then exits is *finished* for SLURM, so it is put back by us as well.
                 Pre-emption without one: SLURM has put the job back already. `scancel`: it is CANCELLED, and
                 putting it back would bring a job to life that its owner ended.

Where SLURM's commands are missing (a container), the batch script is asked to do all this: `run` in
`slurm/common.sh` looks for the file that it named in L2D_REQUEUE.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

_SECONDS = 30  # scontrol answers at once or waits for a controller that is away


def wants_requeue(received: Sequence[int], job: Mapping[str, str]) -> bool:
    """Whether a job that got these signals should run again.

    Args:
        received: signal numbers.
        job: `scontrol show job`, by key.
    """
    if job.get("JobState") != "RUNNING" or job.get("BatchFlag") != "1" or job.get("Requeue") == "0":
        return False
    warned = {signal.SIGUSR1, signal.SIGUSR2} & set(received)
    preempted = signal.SIGTERM in received and job.get("PreemptTime", "None") != "None"
    return bool(warned) or preempted


def requeue(received: Sequence[int], environ: Mapping[str, str] = os.environ) -> int | None:
    """Put this process's SLURM job back into the queue if it should run again.

    Call it on one rank, after the checkpoint is complete.

    Returns:
        The exit code: 0 when the job is back in the queue or its batch script is asked to put it there, None
        when it ends here.
    """
    number = environ.get("SLURM_JOB_ID")
    if number is None or environ.get("SLURM_STEP_ID") is None:
        return None
    try:
        if shutil.which("scontrol") is None:
            return _ask_batch_script(received, environ.get("L2D_REQUEUE"))
        job = parse_job(_scontrol("show", "job", number, "--oneliner"))
        if not wants_requeue(received, job):
            return None
        _scontrol("requeue", number)
    except (subprocess.SubprocessError, OSError) as error:
        words = str(getattr(error, "stderr", None) or error).strip()
        print(f"warning: job {number} could not be put back into the queue ({words}); submit it again")
        return None
    print(f"job {number} is back in the queue; it continues from this checkpoint", flush=True)
    return 0


def _ask_batch_script(received: Sequence[int], file: str | None) -> int | None:
    """Write the signals' names into `file`: an exit code could be that of a rank which srun killed."""
    if not {signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM} & set(received):
        return None
    if file is None:
        raise FileNotFoundError(
            "there is no scontrol here, and L2D_REQUEUE names no file for the batch script"
        )
    Path(file).write_text(" ".join(signal.Signals(number).name for number in received) + "\n")
    print("the batch script is asked to put the job back into the queue", flush=True)
    return 0


def parse_job(text: str) -> dict[str, str]:
    """`scontrol show job --oneliner` as a table. Values with spaces are cut at the first one."""
    return dict(re.findall(r"(\w+)=(\S*)", text))


def _scontrol(*arguments: str) -> str:
    done = subprocess.run(
        ["scontrol", *arguments], check=True, capture_output=True, text=True, timeout=_SECONDS
    )
    return done.stdout
