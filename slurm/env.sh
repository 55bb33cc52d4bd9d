# shellcheck shell=bash
# Settings of your site. Every script here sources this file; edit it once, or set the variables before `sbatch`.
# Secrets (WANDB_API_KEY, HF_TOKEN, ...) do not belong here: export them in the shell you submit from.

# The checkout, and how to get `live2diff` onto PATH.
L2D_ROOT=${L2D_ROOT:-${SLURM_SUBMIT_DIR:-$PWD}}
L2D_ACTIVATE=${L2D_ACTIVATE:-$L2D_ROOT/.venv/bin/activate}
# module purge; module load cuda    # if your site needs it

# Where the logs of jobs go: shared by all nodes.
L2D_LOGS=${L2D_LOGS:-$L2D_ROOT/outputs/slurm}

# Nodes often have no network: models are looked for in the local cache only, W&B logs to the run's folder.
export HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1}
export WANDB_MODE=${WANDB_MODE:-offline}

# The container of train_container.sbatch, and what it sees of the machine.
L2D_IMAGE=${L2D_IMAGE:-live2diff.sif}
L2D_MOUNTS=${L2D_MOUNTS:-$L2D_ROOT}
