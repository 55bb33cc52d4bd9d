# shellcheck shell=bash
# What the batch scripts share. Source it; it expects `set -euo pipefail`.

# The folder of the checkout: sbatch runs a copy of the script, so its own place says nothing.
L2D_ROOT=${L2D_ROOT:-${SLURM_SUBMIT_DIR:?start this with sbatch from the checkout, or set L2D_ROOT}}
cd "$L2D_ROOT" || exit 5
# shellcheck source=slurm/env.sh
source slurm/env.sh

# One file a task, appended to: a requeued job goes on in the same ones.
start_logs() {
  LOGS=$L2D_LOGS/${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}
  mkdir -p "$LOGS"
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

# `run COMMAND ...` ends this script as the command ended. Code 85: the work is saved, but the command could not
# reach SLURM (a container): the job is put back into the queue here.
run() {
  local code=0
  "$@" || code=$?
  if [ "$code" = 85 ]; then
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
  fi
  [ "$code" = 0 ] || echo "$(date -Is) ended with code $code; see $LOGS" >&2
  exit "$code"
}
