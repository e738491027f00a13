"""Commands that say what a study would do, and the checks before it runs."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from rankopt.cli import printing
from rankopt.cli.options import RUNS, Device, Json, Runs, Sets, Study, Workers, study_file
from rankopt.core.path import fields_without
from rankopt.core.text import plural

if TYPE_CHECKING:
    from collections.abc import Callable

    from rankopt.core.study_file import StudyFile
    from rankopt.core.trial_spec import TrialSpec
    from rankopt.study.preflight import Preflight

    Trials = list[tuple[dict[str, Any], TrialSpec]]
    Call = Callable[..., Any]


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

    found = checked(file, printing.console(stderr=True), device)
    planned = found.planned
    paces = {
        precision: seconds_per_flop(precision, found.device)
        for precision in {trial.spec.training.precision for trial in planned}
    }
    seconds = [trial.flops * paces[trial.spec.training.precision] for trial in planned]
    rows = [
        {
            "key": trial.spec.key,
            **{path: printing.short(value) for path, value in fields_without(trial.assignment).items()},
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
    title = f"{file.study.name}: {plural(count, 'trial')}{_trainings_each(file)}{_followups(file)}"
    printing.table(rows, f"{title}; {plural(len(rows), 'example')}:" if file.sampled else title)
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


def checked(file: StudyFile, console: Any, device: str, call: Call = _call) -> Preflight:
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


def _trainings_each(file: StudyFile) -> str:
    """The number of trainings per trial, if the study repeats its proposals."""
    return f" of {len(file.study.repeats())} trainings each" if file.study.repeat else ""


def _followups(file: StudyFile) -> str:
    """Whether more trials follow from the results."""
    from rankopt.search import build_search

    more = file.study.tune or build_search(file.study).follows
    return ", and more that follow from their results" if more else ""
