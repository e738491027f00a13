#!/bin/bash
# Sixteen workers of one search as a SLURM array. Write the storage's URL into a file that only you can read:
#   (umask 077; echo 'postgresql+psycopg://user:password@host/database' > ~/.rankopt-storage)
# and create the study once, on any machine that reaches the database:
#   rankopt run studies/search_rte.yaml --storage @~/.rankopt-storage --artifacts /shared/rankopt/artifacts
# Every task of the array then works on it. A preempted or killed task loses nothing: another one continues its trial,
# from its checkpoint if --dir is shared.
#SBATCH --job-name=rankopt
#SBATCH --array=1-16
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=4
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
# exec: rankopt receives SLURM's TERM before the time limit, writes a checkpoint and requeues its trial
exec rankopt worker search_rte --storage @~/.rankopt-storage --dir /shared/rankopt/runs --wandb disabled
