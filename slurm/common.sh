# shellcheck shell=bash
# What the batch scripts share. Source it; it expects `set -euo pipefail`.

# The folder of the checkout: sbatch runs a copy of the script, so its own place says nothing.
L2D_ROOT=${L2D_ROOT:-${SLURM_SUBMIT_DIR:?start this with sbatch from the checkout, or set L2D_ROOT}}
cd "$L2D_ROOT" || exit 5
# shellcheck source=slurm/env.sh
source slurm/env.sh

# Since 22.05 srun does not take --cpus-per-task from the job: every task would get one core.
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}

# One file a task, appended to: a requeued job goes on in the same ones.
start_logs() {
  LOGS=$L2D_LOGS/${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
  mkdir -p "$LOGS"
  export L2D_REQUEUE=$LOGS/requeue-$SLURM_JOB_ID
  rm -f "$L2D_REQUEUE"  # of an earlier start of this job
  scontrol show job "$SLURM_JOB_ID" > "$LOGS/job-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}.txt" || true
  echo "$(date -Is) job $SLURM_JOB_ID, start $((${SLURM_RESTART_COUNT:-0} + 1)), on ${SLURM_JOB_NODELIST:-?}; logs: $LOGS"
}

activate() {
  # shellcheck disable=SC1090
  [ -f "$L2D_ACTIVATE" ] && source "$L2D_ACTIVATE"
  command -v live2diff > /dev/null || { echo "error: live2diff is not on PATH; set L2D_ACTIVATE in slurm/env.sh" >&2; exit 5; }
}

# Run a command as every task of the job. --kill-on-bad-exit: a lost rank ends the job instead of a hang.
on_all_tasks() {
  srun --kill-on-bad-exit=1 --open-mode=append --output="$LOGS/task-%t.log" "$@"
}

# `run COMMAND ...` ends this script as the command ended. A training that cannot reach SLURM (a container)
# saves, and leaves the names of the signals that stopped it in $L2D_REQUEUE.
run() {
  local code=0 signals
  "$@" || code=$?
  if [ -f "$L2D_REQUEUE" ]; then
    signals=$(< "$L2D_REQUEUE")
    if put_back "$signals"; then exit 0; fi
    code=$((128 + $(kill -l "${signals%% *}")))
  fi
  [ "$code" = 0 ] || echo "$(date -Is) ended with code $code; see $LOGS" >&2
  exit "$code"
}

# Put the job back into the queue as train/requeue.py does: not one that its owner cancelled, which is not
# RUNNING, and after TERM alone only one that SLURM says it pre-empted.
put_back() {
  local job
  job=$(scontrol show job "$SLURM_JOB_ID" --oneliner) || return
  [[ $job =~ \ JobState=RUNNING\  && ! $job =~ \ Requeue=0\  ]] || return
  [[ $1 =~ USR || $job =~ \ PreemptTime=[0-9] ]] || return
  scontrol requeue "$SLURM_JOB_ID"
}
