"""Commands that run, validate or plan a study."""

from __future__ import annotations

import json
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
    Json,
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
)
from rankopt.core.path import fields_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from rankopt.core.study_file import StudyFile
    from rankopt.core.study_spec import StudySpec
    from rankopt.core.trial_spec import TrialSpec
    from rankopt.study.preflight import Preflight
    from rankopt.study.run import Outcome
    from rankopt.study.wandb_run import WandbMode

    Trials = list[tuple[dict[str, Any], TrialSpec]]
    Call = Callable[..., Any]


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
    found = _preflight(file, console, device, pool.ask)
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
    found = _preflight(file, console, device, pool.ask)  # data missing on this machine must not fail the study's trials
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


def validate(study: Study, sets: Sets = None, directory: Runs = RUNS) -> None:
    """Check a study file: structure, names, options, and whether local data files exist. Reads no data and no model."""
    file = study_file(study, sets, directory)
    from rankopt.study.plan import refuse_missing_files, validated_trials

    trials = validated_trials(file)
    refuse_missing_files(file, trials)
    count = file.study.search.options["trials"] if file.sampled else len(trials)
    trials_each = f"{count:,} trial{'' if count == 1 else 's'}{_trainings_each(file)}"
    print(f"{file.document.path}: valid, {trials_each}{_followups(file)}")


def plan(
    study: Study, sets: Sets = None, workers: Workers = 1, directory: Runs = RUNS, device: Device = "auto",
    as_json: Json = False,
) -> None:  # fmt: skip
    """Print what a study would run and cost.

    Lists steps, tokens, parameters beside the base model and estimated seconds of every trial on this machine.
    """
    file = study_file(study, sets, directory)
    from rankopt.study.devices import described, gpus
    from rankopt.study.preflight import seconds_per_flop

    found = _preflight(file, printing.console(stderr=True), device)
    planned = found.planned
    paces = {
        precision: seconds_per_flop(precision, found.device)
        for precision in {trial.spec.training.precision for trial in planned}
    }
    seconds = [trial.flops * paces[trial.spec.training.precision] for trial in planned]
    rows = [
        {
            "key": trial.spec.key,
            **{
                path: printing.short(value)
                for dimension, values in trial.assignment.items()
                for path, value in fields_of(dimension, values)
            },
            "steps": trial.steps,
            "tokens": trial.tokens,
            "parameters": trial.parameters,
            "seconds": round(duration, 1),
        }
        for trial, duration in zip(planned, seconds, strict=True)
    ]
    if as_json:
        print(json.dumps({"study": file.study.name, "device": found.device, "trials": rows}, indent=2))
        return
    count = file.study.search.options["trials"] if file.sampled else len(rows)
    examples = f"; {len(rows)} examples:" if file.sampled else ""
    printing.table(rows, f"{file.study.name}: {count} trials{_trainings_each(file)}{_followups(file)}{examples}")
    # assumes that a search's trainings cost as much as its examples on average
    share = count * len(file.study.repeats()) / len(planned)
    parts = ("steps", "tokens", "flops")
    steps, tokens, flops = (share * sum(getattr(trial, part) for trial in planned) for part in parts)
    total = printing.duration(share * sum(seconds))
    print(
        f"{steps:,.0f} steps, {tokens:,.0f} tokens, {flops:.3g} operations; "
        f"at least {total} of training on this machine (estimated from a timed matrix product, "
        "without evaluation and overhead)"
    )
    print(described(found.device, workers, len(gpus()) if workers > 1 else 1))
    coverage = {trial.spec.model.name: trial.coverage for trial in sorted(planned, key=lambda trial: -trial.coverage)}
    for name, covered in coverage.items():
        if covered:
            print(f"adapters are on {covered:.0%} of the block weights of {name}")


def _call(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def _preflight(file: StudyFile, console: Any, device: str, call: Call = _call) -> Preflight:
    """Validate a study's trials and read their data and models.

    Args:
        device: see `choose_device`.
        call: calls a function that imports torch, perhaps in another process.
    """
    from rankopt.study.plan import validated_trials
    from rankopt.study.preflight import preflight, seconds_per_flop

    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    trials = call(validated_trials, file)
    _prepare_embedded(trials, console)
    found: Preflight = call(preflight, file, trials, device)
    for note in found.notes:
        say(note)
    if unfit := found.unfit:
        say(
            f"{len(unfit)} of {len(trials)} sampled points of the space cannot start; a proposal like them will be "
            f"recorded as failed: {unfit[0]}"
        )
    if any(spec.training.precision == "bf16" for _, spec in found.trials):
        ratio = call(seconds_per_flop, "bf16", found.device) / call(seconds_per_flop, "fp32", found.device)
        if ratio > 2:
            say(
                f"training.precision: bf16 is {ratio:.0f} times slower than fp32 on this machine (measured on a matrix "
                "product); use fp32 here"
            )
    return found


def _prepare_embedded(trials: Trials, console: Any) -> None:
    """Pretrain the embedded models, with a progress bar, before any worker needs them."""
    from rankopt.tasks.embedded import EMBEDDED

    for name in sorted(EMBEDDED.keys() & {spec.model.name for _, spec in trials}):
        from rich.progress import Progress

        with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
            task = bars.add_task(f"pretraining the embedded model {name} (first use only)", total=None)
            EMBEDDED[name](partial(_advance, bars, task))


def _advance(bars: Any, task: Any, step: int, steps: int) -> None:
    bars.update(task, completed=step, total=steps)


def _wandb_mode(wandb: str | None) -> WandbMode:
    from rankopt.study.wandb_run import check_wandb_mode, default_wandb_mode

    if wandb is None:
        return default_wandb_mode()
    if wandb not in ("offline", "online", "disabled"):
        raise ValueError(f"--wandb must be offline, online or disabled, got {wandb!r}")
    mode: WandbMode = wandb  # type: ignore[assignment]
    check_wandb_mode(mode)
    return mode


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
    written = f"rankopt report {study.name} writes {Path('reports', study.name, 'index.html')}"
    say(f"Page: {page or written}")
    if outcome.refusal:
        printing.fail(3, outcome.refusal)
    if outcome.interrupted:
        printing.fail(130, "interrupted; run again to continue")
    raise typer.Exit(1 if outcome.counts["failed"] and failures_matter else 0)


def _trainings_each(file: StudyFile) -> str:
    """The number of trainings per trial, if the study repeats its proposals."""
    return f" of {len(file.study.repeats())} trainings each" if file.study.repeat else ""


def _followups(file: StudyFile) -> str:
    """Whether more trials follow from the results."""
    from rankopt.search import build_search

    more = file.study.tune or build_search(file.study).follows
    return ", and more that follow from their results" if more else ""
