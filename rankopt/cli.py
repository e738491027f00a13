"""The command line: parse, call, print. Exit codes: 0 done, 1 trials failed, 2 wrong input, 3 refused by the machine
(storage, disk), 130 interrupted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rankopt import __version__, adapter_cli, listing, printing
from rankopt.core.folders import new_place

if TYPE_CHECKING:
    from rankopt.core.spec import StudySpec, TrialSpec
    from rankopt.core.study_file import StudyFile
    from rankopt.study.plan import PlannedTrial
    from rankopt.study.run import Outcome
    from rankopt.study.storage import StudyStore

    Trials = list[tuple[dict[str, Any], TrialSpec]]

app = typer.Typer(
    help="Experiments for adaptive-rank LoRA: which rank should each layer get, what does it cost, and is it better?",
    epilog="Exit codes: 0 done, 1 trials failed, 2 wrong input, 3 refused by the machine, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Study = Annotated[str, typer.Argument(help="A study file, or the name of a study that was run before.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a field of the study, for example training.epochs=3."),
]
Runs = Annotated[Path, typer.Option("--dir", help="Where studies live.")]
Storage = Annotated[str | None, typer.Option(help="An Optuna storage URL; the study's own SQLite file by default.")]
Artifacts = Annotated[
    str | None,
    typer.Option(help="Where adapters and predictions go: a folder, s3://bucket/prefix or gs://bucket/prefix."),
]
Workers = Annotated[int, typer.Option(min=1, help="Local worker processes.")]
Together = Annotated[
    int, typer.Option(min=1, help="Trials that each worker trains at once; those of one model share its passes.")
]
Wandb = Annotated[str | None, typer.Option(help="offline, online or disabled; offline where installed.")]
CheckpointSteps = Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints, not half a minute.")]
Heartbeat = Annotated[int, typer.Option(min=1, help="Seconds between a running trial's signs of life.")]
Grace = Annotated[int, typer.Option(min=2, help="Silent seconds after which a trial counts as dead.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RUNS = Path("runs")


def main() -> None:
    """The console script: errors become one line (or one line each) and an exit code."""
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        _fail(130, "interrupted")
    except ValueError as error:
        _fail(2, str(error))
    except OSError as error:
        _fail(3, f"{error.strerror}: {error.filename}" if error.strerror and error.filename else str(error))
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("sqlalchemy", "optuna"):
            _fail(3, f"the storage failed: {str(error).splitlines()[0]}; nothing recorded is lost, run again")
        raise


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
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
    file = _file(study, sets, directory)
    mode = _mode(wandb)
    from rankopt.study.staff import Staff

    staff = Staff(workers)
    from rankopt.study.database import sqlite_url
    from rankopt.study.run import run_study

    console = printing.console()
    trials, _ = _prepared(file, console)
    folder = directory / file.study.name
    outcome = run_study(
        file.study,
        trials,
        folder=folder,
        url=storage or sqlite_url(folder),
        console=console,
        staff=staff,
        wandb=mode,
        checkpoint_steps=checkpoint_steps,
        retry_failed=retry_failed,
        heartbeat=heartbeat,
        grace=grace,
        artifacts=_place(artifacts),
        together=together,
    )
    _finish(outcome, file.study.name, console)


@app.command()
def validate(study: Study, sets: Sets = None, directory: Runs = RUNS) -> None:
    """Check a study file: structure, names, and every allocator's options. Reads no data and no model."""
    file = _file(study, sets, directory)
    from rankopt.study.plan import checked_trials

    trials = checked_trials(file)
    count = file.study.search.options["trials"] if file.sampled else len(trials)
    print(f"{file.document.path}: valid, {count} trials{_each(file)}{_more(file)}")


@app.command()
def plan(study: Study, sets: Sets = None, directory: Runs = RUNS, as_json: Json = False) -> None:
    """What a study would run, and roughly what it would cost here."""
    file = _file(study, sets, directory)
    from rankopt.study.plan import seconds_per_flop

    _, planned = _prepared(file, printing.console(stderr=True))
    pace = seconds_per_flop()
    rows = [
        {
            "key": trial.spec.key,
            **{path: printing.short(value) for path, value in trial.choice.items()},
            "steps": trial.steps,
            "tokens": trial.tokens,
            "seconds": round(trial.flops * pace, 1),
        }
        for trial in planned
    ]
    if as_json:
        print(json.dumps({"study": file.study.name, "trials": rows}, indent=2))
        return
    count = file.study.search.options["trials"] if file.sampled else len(rows)
    examples = f", for example these {len(rows)} and what lies between them" if file.sampled else ""
    printing.table(rows, f"{file.study.name}: {count} trials{_each(file)}{examples}{_more(file)}")
    # a search's trainings cost as much as its examples do on average
    share = count * len(file.study.repeats()) / len(planned)
    total = share * sum(trial.flops for trial in planned)
    steps, tokens = (share * sum(getattr(trial, part) for trial in planned) for part in ("steps", "tokens"))
    print(
        f"{steps:,.0f} steps, {tokens:,.0f} tokens, {total:.3g} operations; "
        f"at the pace of a matrix product timed here just now at least {printing.duration(total * pace)} of training "
        "(an estimate from below: no evaluation, no overhead)"
    )


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="allocators, tasks, searches or layers.")],
    model: Annotated[str, typer.Option(help="For layers: a folder, a hub name or mini.")] = "mini",
    target_modules: Annotated[str, typer.Option(help="For layers.")] = "all-linear",
    as_json: Json = False,
) -> None:
    """List allocators, tasks, searches, or the layers of a model that would be adapted."""
    tables = {"allocators": listing.allocators, "tasks": listing.tasks, "searches": listing.searches}
    if what not in (*tables, "layers"):
        from rankopt.core.problems import nearest

        raise ValueError(f"list must be given a known kind, got {what!r}{nearest(what, [*tables, 'layers'])}")
    rows = listing.layers(model, target_modules) if what == "layers" else tables[what]()
    if as_json:
        print(json.dumps(rows, indent=2))
    else:
        printing.table(rows, what)


@app.command()
def show(
    study: Study, storage: Storage = None, directory: Runs = RUNS, as_json: Json = False
) -> None:  # fmt: skip
    """The results of a study so far."""
    store, spec = _store(study, storage, directory)
    results = store.results(planned=False)
    if as_json:
        data = {
            "study": spec.model_dump(mode="json", by_alias=True),
            "counts": store.counts(),
            "results": [result.model_dump(mode="json") for result in results],
        }
        print(json.dumps(data, indent=2))
        return
    rows = []
    for result in results:
        best = result.points[0] if result.points else None
        rows.append(
            {
                "key": result.key,
                "task": result.spec["task"]["name"],
                "allocator": result.spec["allocator"]["name"],
                "budget": printing.short(result.spec.get("budget")),
                "seed": result.spec.get("seed", 0),
                "kept": f"{best.kept:,}" if best else "",
                "search": f"{result.score('search'):.4f}" if best else "",
                "report": f"{result.score('report'):.4f}" if best else "",
                "status": result.status if result.status == "complete" else f"failed: {result.reason}",
            }
        )
    printing.table(rows, f"{spec.name}: {printing.counts(store.counts())}")


@app.command()
def report(
    study: Study,
    storage: Storage = None,
    directory: Runs = RUNS,
    out: Annotated[Path | None, typer.Option(help="Folder of the report; reports/<study> by default.")] = None,
) -> None:
    """Write the report of a study: a page, Markdown, data and figures."""
    store, spec = _store(study, storage, directory)
    from rankopt.analysis.search import Proposal, SearchRecord
    from rankopt.report import write_report
    from rankopt.study.importance import importances

    record = None
    if store.search.trials is not None:
        record = SearchRecord([Proposal(*row) for row in store.proposals()], importances(store, spec))
    folder = out or Path("reports") / spec.name
    print(write_report(spec, store.results(), folder, counts=store.counts(), search=record))


@app.command()
def best(
    study: Study,
    budget: Annotated[int | None, typer.Option(min=0, help="Adapter parameters kept at most.")] = None,
    storage: Storage = None,
    directory: Runs = RUNS,
    as_json: Json = False,
) -> None:
    """The best pattern on the search split within a budget (or the study's constraint), or else the Pareto front."""
    store, spec = _store(study, storage, directory)
    budget = spec.constraints.get("parameters") if budget is None else budget
    from rankopt.analysis.frame import VARIANTS, tidy
    from rankopt.analysis.search import best as best_of

    results = {result.key: result for result in store.results()}
    found = best_of(tidy(results.values(), variants=1 if store.search.trials else VARIANTS), budget)
    if found.empty:
        bound = f" within {budget:,} parameters" if budget is not None else ""
        raise ValueError(f"study {spec.name!r} must have a complete trial{bound}, it has none")
    patterns = [
        dict(next(point.pattern for point in results[row.key].points if point.label == row.point))
        for row in found.itertuples()
    ]
    rows = found.rename(columns={"setting": "task", "n": "seeds", "score": "report"}).to_dict("records")
    if as_json:
        print(json.dumps([{**row, "pattern": pattern} for row, pattern in zip(rows, patterns, strict=True)], indent=2))
        return
    formats = {"kept": ",.0f", "mean_rank": ".2f", "search": ".4f", "report": ".4f"}
    shown = [{name: format(value, formats.get(name, "")) for name, value in row.items()} for row in rows]
    printing.table(shown, f"{spec.name}: best {'front' if budget is None else f'within {budget:,} parameters'}")
    for row, pattern in zip(rows, patterns, strict=True) if budget is not None else ():
        printing.table([{"layer": name, "rank": rank} for name, rank in pattern.items()], f"ranks of {row['key']}")


@app.command()
def importance(study: Study, storage: Storage = None, directory: Runs = RUNS, as_json: Json = False) -> None:
    """Which dimensions of a search matter: shares by PED-ANOVA."""
    store, spec = _store(study, storage, directory)
    from rankopt.study.importance import LEAST, importances

    found = importances(store, spec)
    if not found:
        raise ValueError(
            f"study {spec.name!r} must have {LEAST} complete trials and two dimensions that a search proposed, "
            "to tell which matter"
        )
    if as_json:
        print(json.dumps(found, indent=2))
        return
    names = next(iter(found.values()))
    rows = [
        {"dimension": name, **{asked: f"{shares.get(name, 0.0):.1%}" for asked, shares in found.items()}}
        for name in names
    ]
    printing.table(rows, f"{spec.name}: importance of its dimensions")


@app.command()
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
    """Join a study that another machine runs: needs its name and its storage only, and queues nothing."""
    mode = _mode(wandb)
    from rankopt.study.run import keep, run_study
    from rankopt.study.staff import Staff
    from rankopt.study.storage import StudyStore

    folder = directory / study
    spec = StudyStore(storage, study, folder).open()
    keep(spec, folder)
    file = _file(study, None, directory)
    console = printing.console()
    staff = Staff(workers)
    _prepared(file, console)  # data that is missing on this machine must not fail the study's trials
    outcome = run_study(
        spec,
        None,
        folder=folder,
        url=storage,
        console=console,
        staff=staff,
        wandb=mode,
        checkpoint_steps=checkpoint_steps,
        heartbeat=heartbeat,
        grace=grace,
        artifacts=_place(artifacts),
        together=together,
    )
    _finish(outcome, study, console)


@app.command()
def export(
    study: Study,
    out: Annotated[Path, typer.Option(help="Folder to make; must not exist.")],
    trial: Annotated[str | None, typer.Option(help="A trial's key; the best by `best` by default.")] = None,
    point: Annotated[str | None, typer.Option(help="A pattern of that trial; its own by default.")] = None,
    budget: Annotated[int | None, typer.Option(min=0, help="The best that keeps at most so many parameters.")] = None,
    storage: Storage = None,
    directory: Runs = RUNS,
    artifacts: Artifacts = None,
) -> None:
    """Take a trial's trained adapter home: an ordinary PEFT adapter folder."""
    new_place(out)
    if trial and budget is not None:
        raise ValueError("--trial and --budget must not be given together: the one names a trial, the other finds one")
    if point and not trial:
        raise ValueError("--point must go with --trial, whose pattern it names")
    store, spec = _store(study, storage, directory, artifacts)
    from rankopt.study.export import export_adapter

    if trial is None and budget is None:
        budget = spec.constraints.get("parameters")
    result, taken = export_adapter(store, out, trial, point, budget)
    print(
        f"{out}: {result.spec['allocator']['name']} on {result.spec['task']['name']} (trial {result.key}, "
        f"{taken.label}), {taken.kept:,} parameters, search score {result.score('search', taken):.4f}, "
        f"report score {result.score('report', taken):.4f}"
    )


app.command()(adapter_cli.analyze)
app.command()(adapter_cli.compress)
app.command()(adapter_cli.merge)
app.command()(adapter_cli.convert)


def _finish(outcome: Outcome, study: str, console: Any) -> None:
    """The last line of a run, and its exit code."""
    console.print(f"{printing.counts(outcome.counts)}; rankopt report {study}", highlight=False)
    if outcome.refusal:
        _fail(3, outcome.refusal)
    if outcome.interrupted:
        _fail(130, "interrupted; run again to continue")
    raise typer.Exit(1 if outcome.counts["failed"] else 0)


def _file(study: str, sets: list[str] | None, directory: Path) -> StudyFile:
    from rankopt.core.study_file import StudyFile

    return StudyFile(_path(study, directory), sets or ())


def _each(file: StudyFile) -> str:
    """How many trainings a trial is, where it is not one."""
    return f" of {len(file.study.repeats())} trainings each" if file.study.repeat else ""


def _more(file: StudyFile) -> str:
    from rankopt.search import build_search

    return ", and those that follow from their results" if build_search(file.study).follows else ""


def _path(study: str, directory: Path) -> Path:
    """The file of a study, given as a file or as the name of one that was run."""
    path = Path(study)
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return path
    kept = directory / study / "study.yaml"
    if kept.is_file():
        return kept
    from rankopt.core.problems import nearest

    known = sorted(path.parent.name for path in directory.glob("*/study.yaml"))
    hint = nearest(study, known) if known else "; no study was run here yet"
    raise ValueError(f"no study file and no study in {directory}/ is called {study!r}{hint}")


def _store(
    study: str, storage: str | None, directory: Path, artifacts: str | None = None
) -> tuple[StudyStore, StudySpec]:
    from rankopt.study.database import sqlite_url
    from rankopt.study.storage import StudyStore

    named = storage and not Path(study).is_file()
    name = study if named else _file(study, None, directory).study.name
    folder = directory / name
    if not storage and not (folder / "study.db").is_file():
        raise ValueError(f"study {name!r} must be run first: there is no {folder / 'study.db'}")
    store = StudyStore(storage or sqlite_url(folder), name, folder, artifacts=_place(artifacts))
    return store, store.open()


def _mode(wandb: str | None) -> Any:
    from rankopt.study.tracking import check_mode, default_mode

    if wandb is None:
        return default_mode()
    if wandb not in ("offline", "online", "disabled"):
        raise ValueError(f"--wandb must be offline, online or disabled, got {wandb!r}")
    check_mode(wandb)  # type: ignore[arg-type]
    return wandb


def _place(artifacts: str | None) -> str | None:
    """A place of artifacts that means the same in every process, its driver there."""
    if not artifacts:
        return None
    from rankopt.study.artifacts import artifact_store

    place = artifacts if "://" in artifacts else str(Path(artifacts).resolve())
    artifact_store(place)
    return place


def _prepared(file: StudyFile, console: Any) -> tuple[Trials, list[PlannedTrial]]:
    """The trials of a study, checked, and what each would take, with data and model where they must be."""
    from rankopt.study.plan import checked_trials, preflight

    trials = checked_trials(file)
    _prepare_encoder(trials, console)
    return trials, preflight(file, trials)


def _prepare_encoder(trials: Trials, console: Any) -> None:
    """Make the embedded encoder before any worker needs it, with a bar."""
    if not any(spec.model.name == "mini" for _, spec in trials):
        return
    from rich.progress import Progress

    from rankopt.tasks.mini_encoder import encoder_path

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("pretraining the embedded encoder (first use only)", total=None)
        encoder_path(lambda step, steps: bars.update(task, completed=step, total=steps))


def _fail(code: int, text: str) -> None:
    for line in text.splitlines() or [""]:
        print(f"rankopt: {line}", file=sys.stderr)
    sys.exit(code)
