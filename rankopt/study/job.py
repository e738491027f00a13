"""How a study is run: the options of the command line, and the job of one worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankopt.study.wandb_run import WandbMode

HEARTBEAT = 15
"""Seconds between two heartbeats of a running attempt."""
GRACE = 90
"""Seconds without a heartbeat after which an attempt counts as lost."""


@dataclass(frozen=True)
class RunOptions:
    """What `rankopt run` and `rankopt worker` were told about where and how to run; none of it changes a result.

    Attributes:
        url: SQLAlchemy URL of the Optuna storage.
        folder: of the study: artifacts, unfinished trials, W&B files and `log.txt`.
        wandb: see `wandb_run`.
        checkpoint_steps: steps between checkpoints; None for every 30 seconds.
        heartbeat: see `HEARTBEAT`.
        grace: see `GRACE`.
        artifacts: a folder or bucket for adapters and predictions; None for the study's folder.
        together: number of trials that each worker trains jointly.
        retry_failed: requeue failed trials before the workers start.
        results: results file to read first and to write after every trial; None for none.
        device: type of device that workers train on: "cuda", "mps" or "cpu".
    """

    url: str
    folder: Path
    wandb: WandbMode = "disabled"
    checkpoint_steps: int | None = None
    heartbeat: int = HEARTBEAT
    grace: int = GRACE
    artifacts: str | None = None
    together: int = 1
    retry_failed: bool = False
    results: Path | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Job:
    """What one worker process is to do.

    Attributes:
        slot: number of the worker, or of its lane where it trains several trials jointly.
        study: name of the study.
        options: those of the run.
        threads: CPU threads of the worker.
    """

    slot: int
    study: str
    options: RunOptions
    threads: int = 1
