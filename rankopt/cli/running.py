"""The commands that run a study, or say what running it would take."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankopt.cli import printing
from rankopt.cli.options import (
    RUNS,
    Artifacts,
    CheckpointSteps,
    Grace,
    Heartbeat,
    Json,
    Runs,
    Sets,
    Storage,
    Study,
    Together,
    Wandb,
    Workers,
    artifact_place,
    study_file,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankopt.core.spec import TrialSpec
    from rankopt.core.study_file import StudyFile
    from rankopt.study.plan import PlannedTrial
    from rankopt.study.run import Outcome

    Trials = list[tuple[dict[str, Any], TrialSpec]]
    Ask = Callable[..., Any]


def run(
    study: Study,
    sets: Sets = None,
    workers: Workers = 1,
    storage: Storage = None,
    directory: Runs = RUNS,
    wandb: Wandb = None,
    checkpoint_steps: CheckpointSteps = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed trials once more.")] = False,
    heartbeat: Heartbeat = 15,
    grace: Grace = 90,
    artifacts: Artifacts = None,
    together: Together = 1,
) -> None:
    """Run what is not yet done of a study; run it again to resume."""
    file = study_file(study, sets, directory)
    mode = _mode(wandb)
    from rankopt.study.worker_pool import WorkerPool

    pool = WorkerPool(workers)
    from rankopt.study.database import sqlite_url
    from rankopt.study.job import RunOptions
    from rankopt.study.run import run_study

    console = printing.console()
    trials, _ = _prepared(file, console, pool.ask)
    folder = directory / file.study.name
    options = RunOptions(
        url=storage or sqlite_url(folder),
        folder=folder,
        wandb=mode,
        checkpoint_steps=checkpoint_steps,
        heartbeat=heartbeat,
        grace=grace,
        artifacts=artifact_place(artifacts),
        together=together,
        retry_failed=retry_failed,
    )
    outcome = run_study(file.study, trials, options, console=console, pool=pool)
    _finish(outcome, file.study.name, console)


def worker(
    study: Annotated[str, typer.Argument(help="The name of a study that the storage holds.")],
    storage: Annotated[str, typer.Option(help="An Optuna storage URL.")],
    workers: Workers = 1,
    directory: Runs = RUNS,
    wandb: Wandb = None,
    checkpoint_steps: CheckpointSteps = None,
    heartbeat: Heartbeat = 15,
    grace: Grace = 90,
    artifacts: Artifacts = None,
    together: Together = 1,
) -> None:
    """Join a study that another machine runs: needs its name and its storage only, queues nothing, judges no trial."""
    mode = _mode(wandb)
    from rankopt.study.database import refuse_absent
    from rankopt.study.job import RunOptions
    from rankopt.study.run import keep, run_study
    from rankopt.study.storage import StudyStore
    from rankopt.study.worker_pool import WorkerPool

    refuse_absent(storage)
    folder = directory / study
    spec = StudyStore(storage, study, folder).open()
    keep(spec, folder)
    file = study_file(study, None, directory)
    console = printing.console()
    pool = WorkerPool(workers)
    _prepared(file, console, pool.ask)  # data that is missing on this machine must not fail the study's trials
    options = RunOptions(
        url=storage,
        folder=folder,
        wandb=mode,
        checkpoint_steps=checkpoint_steps,
        heartbeat=heartbeat,
        grace=grace,
        artifacts=artifact_place(artifacts),
        together=together,
    )
    outcome = run_study(spec, None, options, console=console, pool=pool)
    # what starts workers again when they fail would do so for ever after one trial that failed
    _finish(outcome, study, console, judged=False)


def validate(study: Study, sets: Sets = None, directory: Runs = RUNS) -> None:
    """Check a study file: structure, names, and every allocator's options. Reads no data and no model."""
    file = study_file(study, sets, directory)
    from rankopt.study.plan import checked_trials

    trials = checked_trials(file)
    count = file.study.search.options["trials"] if file.sampled else len(trials)
    print(f"{file.document.path}: valid, {count} trials{_each(file)}{_more(file)}")


def plan(study: Study, sets: Sets = None, directory: Runs = RUNS, as_json: Json = False) -> None:
    """What a study would run, and roughly what it would cost here."""
    file = study_file(study, sets, directory)
    from rankopt.study.plan import seconds_per_flop

    _, planned = _prepared(file, printing.console(stderr=True))
    paces = {
        precision: seconds_per_flop(precision) for precision in {trial.spec.training.precision for trial in planned}
    }
    seconds = [trial.flops * paces[trial.spec.training.precision] for trial in planned]
    rows = [
        {
            "key": trial.spec.key,
            **{path: printing.short(value) for path, value in trial.assignment.items()},
            "steps": trial.steps,
            "tokens": trial.tokens,
            "seconds": round(duration, 1),
        }
        for trial, duration in zip(planned, seconds, strict=True)
    ]
    if as_json:
        print(json.dumps({"study": file.study.name, "trials": rows}, indent=2))
        return
    count = file.study.search.options["trials"] if file.sampled else len(rows)
    examples = f", for example these {len(rows)} and what lies between them" if file.sampled else ""
    printing.table(rows, f"{file.study.name}: {count} trials{_each(file)}{examples}{_more(file)}")
    # a search's trainings cost as much as its examples do on average
    share = count * len(file.study.repeats()) / len(planned)
    parts = ("steps", "tokens", "flops")
    steps, tokens, flops = (share * sum(getattr(trial, part) for trial in planned) for part in parts)
    long = printing.duration(share * sum(seconds))
    print(
        f"{steps:,.0f} steps, {tokens:,.0f} tokens, {flops:.3g} operations; "
        f"at the pace of a matrix product timed here just now at least {long} of training (an "
        "estimate from below: no evaluation, no overhead)"
    )


def _here(function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def _prepared(file: StudyFile, console: Any, ask: Ask = _here) -> tuple[Trials, list[PlannedTrial]]:
    """The trials of a study, checked, and what each would take, with data and model where they must be.

    `ask` calls whatever imports torch.
    """
    from rankopt.study.plan import checked_trials, preflight, seconds_per_flop

    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    trials = ask(checked_trials, file)
    _prepare_encoder(trials, console)
    planned, unfit = ask(preflight, file, trials)
    if unfit:
        say(f"{len(unfit)} of {len(trials)} examples of the space cannot start, so proposals there fail: {unfit[0]}")
    if any(trial.spec.training.precision == "bf16" for trial in planned):
        # asked for to be faster, it is slower by an order of magnitude where there are no instructions for it
        ratio = ask(seconds_per_flop, "bf16") / ask(seconds_per_flop, "fp32")
        if ratio > 2:
            say(
                f"training.precision: a matrix product in bf16 takes {ratio:.0f} times as long as in fp32 on this "
                "machine; fp32 trains faster here"
            )
    return trials, planned


def _prepare_encoder(trials: Trials, console: Any) -> None:
    """Make the embedded encoder before any worker needs it, with a bar."""
    if not any(spec.model.name == "mini" for _, spec in trials):
        return
    from rich.progress import Progress

    from rankopt.tasks.mini_encoder import encoder_path

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("pretraining the embedded encoder (first use only)", total=None)
        encoder_path(lambda step, steps: bars.update(task, completed=step, total=steps))


def _mode(wandb: str | None) -> Any:
    from rankopt.study.tracking import check_mode, default_mode

    if wandb is None:
        return default_mode()
    if wandb not in ("offline", "online", "disabled"):
        raise ValueError(f"--wandb must be offline, online or disabled, got {wandb!r}")
    check_mode(wandb)  # type: ignore[arg-type]
    return wandb


def _finish(outcome: Outcome, study: str, console: Any, *, judged: bool = True) -> None:
    """The last line of a run, and its exit code."""
    console.print(f"{printing.counts(outcome.counts)}; rankopt report {study}", highlight=False)
    if outcome.refusal:
        printing.fail(3, outcome.refusal)
    if outcome.interrupted:
        printing.fail(130, "interrupted; run again to continue")
    raise typer.Exit(1 if outcome.counts["failed"] and judged else 0)


def _each(file: StudyFile) -> str:
    """How many trainings a trial is, where it is not one."""
    return f" of {len(file.study.repeats())} trainings each" if file.study.repeat else ""


def _more(file: StudyFile) -> str:
    from rankopt.search import build_search

    return ", and those that follow from their results" if build_search(file.study).follows else ""
