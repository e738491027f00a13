#!/bin/bash
# Sixteen workers of one search as a SLURM array. Once, from anywhere that reaches the database:
#   rankopt run studies/search_rte.yaml --storage "$RANKOPT_STORAGE" --artifacts /shared/rankopt/artifacts
# queues the study and works on it too; every task of the array then joins it. A task that is preempted or killed loses
# nothing: its trial is taken up by another one, from its checkpoint where --dir is shared.
#SBATCH --job-name=rankopt
#SBATCH --array=1-16
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
: "${RANKOPT_STORAGE:?postgresql+psycopg://user:password@host/database}"
# exec: SLURM's TERM before the time limit reaches rankopt, which writes a checkpoint and puts its trial back
exec rankopt worker search_rte --storage "$RANKOPT_STORAGE" --dir /shared/rankopt/runs --wandb disabled
