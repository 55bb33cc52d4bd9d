#!/usr/bin/env bash
# Submit a batch script, and say where its logs will be.
#
#   slurm/submit.sh [SBATCH OPTION ...] SCRIPT [ARGUMENT ...]
#
#   slurm/submit.sh --partition=gpu --time=12:00:00 slurm/train_single_node.sbatch experiment=stage1_mask \
#       data.path=/scratch/me/clips "model.unet.pretrained=/models/with a space"
#
# Options (they begin with --, and have their value after a =) go to sbatch and win over the script's own.
# Arguments reach the script exactly as written. Secrets (WANDB_API_KEY) travel in the environment that you
# submit from; they are on no command line and in no file.
set -euo pipefail

usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }
fail() { echo "error: $1" >&2; exit 2; }

options=()
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --*=*) options+=("$1"); shift ;;
    --*) case $1 in
        --requeue | --no-requeue | --exclusive | --hold) options+=("$1"); shift ;;
        *) fail "$1: write options as --name=value" ;;
      esac ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || { usage >&2; exit 2; }
script=$1
shift
[ -f "$script" ] || fail "$script: no such script"
command -v sbatch > /dev/null || { echo "error: sbatch is not installed: this is no SLURM login node" >&2; exit 5; }

L2D_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export L2D_ROOT
# shellcheck source=slurm/env.sh
source "$L2D_ROOT/slurm/env.sh"
mkdir -p "$L2D_LOGS"
name=$(basename "${script%.sbatch}")
job=$(sbatch --parsable --export=ALL --output="$L2D_LOGS/$name-%j.log" "${options[@]}" "$script" "$@")
job=${job%%;*}
echo "job $job submitted; its log: $L2D_LOGS/$name-$job.log, of its tasks: $L2D_LOGS/$job/task-*.log"
echo "next: squeue -j $job    to end it: scancel $job    to go on later: the same line again"
