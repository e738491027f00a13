"""Commands that run a study."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankopt.cli import printing
from rankopt.cli.options import (
    RUNS,
    Artifacts,
    CheckpointSteps,
    Device,
    Grace,
    Heartbeat,
    Runs,
    Sets,
    SharedStorage,
    Storage,
    Study,
    Together,
    Wandb,
    Workers,
    artifact_location,
    study_file,
    wandb_mode,
)
from rankopt.cli.planning import checked

if TYPE_CHECKING:
    from rich.console import Console

    from rankopt.core.study_spec import StudySpec
    from rankopt.study.run import Outcome
    from rankopt.study.wandb_run import WandbMode


def run(
    study: Study,
    sets: Sets = None,
    workers: Workers = 1,
    storage: Storage = None,
    directory: Runs = RUNS,
    wandb: Wandb = None,
    checkpoint_steps: CheckpointSteps = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Train every failed trial once more.")] = False,
    heartbeat: Heartbeat = 15,
    grace: Grace = 90,
    artifacts: Artifacts = None,
    together: Together = 1,
    device: Device = "auto",
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write this results file after every trial; results that it has are not run again."
        ),
    ] = None,
) -> None:
    """Run a study. To resume, run it again: finished trials are skipped, interrupted ones continue."""
    outcome, spec, console = execute(
        study, sets, workers, directory, wandb, device, storage=storage, checkpoint_steps=checkpoint_steps,
        heartbeat=heartbeat, grace=grace, artifacts=artifact_location(artifacts), together=together,
        retry_failed=retry_failed, results=results,
    )  # fmt: skip
    finish(outcome, spec, console)


def execute(
    study: str, sets: list[str] | None, workers: int, directory: Path, wandb: str | None, device: str,
    *, storage: str | None = None, **options: Any,
) -> tuple[Outcome, StudySpec, Console]:  # fmt: skip
    """Run a study file; `options` are further fields of `RunOptions`.

    Returns:
        What became of it, the study as it was run, and the console that it was told on.
    """
    file = study_file(study, sets, directory)
    mode = _wandb_mode(wandb)
    from rankopt.study.worker_pool import WorkerPool

    pool = WorkerPool(workers, device)
    from rankopt.study.job import RunOptions
    from rankopt.study.run import run_study
    from rankopt.study.storage_url import sqlite_url

    console = printing.console()
    found = checked(file, console, device, pool.ask)
    folder = directory / file.study.name
    job = RunOptions(storage or sqlite_url(folder), folder, mode, device=found.device, **options)
    outcome = run_study(found.study, found.trials, job, console=console, pool=pool)
    return outcome, found.study, console


def worker(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The name of a study in the storage.")],
    storage: SharedStorage,
    workers: Workers = 1,
    directory: Runs = RUNS,
    wandb: Wandb = None,
    checkpoint_steps: CheckpointSteps = None,
    heartbeat: Heartbeat = 15,
    grace: Grace = 90,
    artifacts: Artifacts = None,
    together: Together = 1,
    device: Device = "auto",
) -> None:
    """Work on a study that another machine runs.

    Adds no trials and ignores failed trials in its exit code."""
    mode = _wandb_mode(wandb)
    from rankopt.study.contents import refuse_other_contents
    from rankopt.study.job import RunOptions
    from rankopt.study.run import keep, run_study
    from rankopt.study.storage import StudyStore
    from rankopt.study.storage_url import refuse_missing_file
    from rankopt.study.worker_pool import WorkerPool

    refuse_missing_file(storage)
    folder = directory / study
    spec = StudyStore(storage, study, folder).open()
    keep(spec, folder)
    file = study_file(study, None, directory)
    console = printing.console()
    pool = WorkerPool(workers, device)
    found = checked(file, console, device, pool.ask)  # data missing on this machine must not fail the study's trials
    refuse_other_contents(spec, found.study.contents)
    options = RunOptions(
        url=storage,
        folder=folder,
        wandb=mode,
        checkpoint_steps=checkpoint_steps,
        heartbeat=heartbeat,
        grace=grace,
        artifacts=artifact_location(artifacts),
        together=together,
        device=found.device,
    )
    outcome = run_study(spec, None, options, console=console, pool=pool)
    # a cluster restarts a worker that exits with an error: one failed trial would restart workers forever
    finish(outcome, spec, console, failures_matter=False)


def _wandb_mode(wandb: str | None) -> WandbMode:
    from rankopt.study.wandb_run import default_wandb_mode

    return default_wandb_mode() if wandb is None else wandb_mode("--wandb", wandb, "offline", "online", "disabled")


def finish(
    outcome: Outcome, study: StudySpec, console: Console, *, failures_matter: bool = True, page: Path | None = None
) -> None:
    """Print the answer so far and where its page is or how to write it, and exit with the run's code."""
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    if not outcome.refusal and not outcome.interrupted:
        from rankopt.report import headline

        for line in headline(study, outcome.results, min(console.width, 80)):
            say(line)
        if outcome.synced:
            say(f"W&B: {outcome.synced}")
    say(printing.counts(outcome.counts))
    if page:
        say(f"Page: {page}")
    elif outcome.counts["complete"]:
        say(f"Adapter: rankopt export {study.name} --out FOLDER")
        say(f"Page: rankopt report {study.name} will write {Path('reports', study.name, 'index.html')}")
    if outcome.refusal:
        printing.fail(3, outcome.refusal)
    if outcome.interrupted:
        printing.fail(130, "interrupted; run again to continue")
    raise typer.Exit(1 if outcome.counts["failed"] and failures_matter else 0)
