"""Commands for results files: `rankopt results export` and `rankopt results import`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rankopt.cli.options import RUNS, Artifacts, Runs, Storage, collect_rarely, open_store, study_file
from rankopt.core.folders import absent_path, new_file, new_folder
from rankopt.core.text import plural

if TYPE_CHECKING:
    from rankopt.core.study_file import StudyFile
    from rankopt.core.study_spec import StudySpec
    from rankopt.core.trial_spec import TrialSpec
    from rankopt.study.contents import Contents
    from rankopt.study.results_file import Reading
    from rankopt.study.results_format import AnyRecord
    from rankopt.study.results_merge import Merged
    from rankopt.study.storage import StudyStore

app = typer.Typer(help="Export results to a portable file, or import them.", no_args_is_help=True)
From = Annotated[
    list[Path] | None,
    typer.Option("--from", metavar="FILE", help="Read this results file instead of a storage; repeatable."),
]
Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="Results files, JSON Lines.")]


@app.command("export")
def export(
    out: Annotated[
        Path, typer.Option(metavar="PATH", help="Write this file (peft: create this folder); a file is replaced.")
    ],
    study: Annotated[
        str | None, typer.Argument(metavar="[STUDY]", help="A study file or a study's name; optional with --from.")
    ] = None,
    files: From = None,
    form: Annotated[
        Literal["results", "rows", "bencheval", "peft"],
        typer.Option(
            "--format",
            help="results: everything, one trial a line. rows: a table for `rankopt blackbox`. bencheval: a CSV of "
            "method, task, seed and metric_error. peft: a folder in the layout of PEFT's method comparison.",
        ),
    ] = "results",
    predictions: Annotated[
        bool, typer.Option("--predictions", help="Include each trial's predictions (results only).")
    ] = False,
    storage: Storage = None,
    directory: Runs = RUNS,
    artifacts: Artifacts = None,
) -> None:
    """Write the results of a study, or of results files, to a file that needs no storage.

    A results file has the study's spec and every trial's spec, scores, pattern, cost and environment, also of failed
    trials. It has no adapters; `rankopt export` writes one.
    """
    if form == "peft":
        absent_path(out)
    files, study = results_files(files, study)
    if files:
        reading, merged, file = _merged(files, study, directory)
        if form == "results" and file is None:
            _ = merged.name  # a table may have the trials of several studies
        records = merged.records
        tell(reading, merged)
    else:
        if study is None:
            raise ValueError("results export needs a STUDY, or results files: --from results.jsonl")
        from rankopt.study.results_file import Reading
        from rankopt.study.results_transfer import store_records

        store, _ = open_store(study, storage, directory, artifacts)
        records, reading = store_records(store, predictions=predictions), Reading()
    print(_write(records, out, form, predictions))
    finish(reading)


def results_files(files: list[Path] | None, study: str | None) -> tuple[list[Path], str | None]:
    """The results files and the study of a command line; a results file in the study's place is one of the files."""
    if study is not None and study.endswith((".jsonl", ".jsonl.gz")):
        return [*(files or []), Path(study)], None
    return files or [], study


def _write(records: list[AnyRecord], out: Path, form: str, predictions: bool) -> str:
    """Write records in a form; returns a line that says what was written."""
    from rankopt.study.results_file import write_results
    from rankopt.study.results_format import TrialRecord

    trials = [record for record in records if isinstance(record, TrialRecord)]
    planned = [record.value for record in trials if record.planned]
    if form == "results":
        write_results(records, out)
        without = sum(record.predictions is None and record.result.status == "complete" for record in trials)
        lacking = f", {without} without predictions" if predictions and without else ""
        return f"{out}: {plural(len(trials), 'result')}{lacking}"
    if form == "rows":
        from rankopt.analysis.blackbox import rows_of

        rows = rows_of(planned)
        write_results(rows, out)
        return f"{out}: {plural(len(rows), 'row')}"
    from rankopt.analysis import exports

    if form == "bencheval":
        from rankopt.analysis.frame import tidy

        table = exports.bencheval_rows(tidy(planned))
        new_file(out, table.to_csv(index=False, lineterminator="\n"))
        missing = plural(exports.missing_rows(table), "combination")
        return f"{out}: {plural(len(table), 'row')}, {missing} of method, task and seed missing"
    with new_folder(out) as draft:
        for name, content in map(exports.peft_run, planned):
            (draft / name).write_text(json.dumps(content, indent=2), encoding="utf-8")
    return f"{out}: {plural(len(planned), 'run')}"


@app.command("import")
def import_(
    files: Files,
    into: Annotated[
        str | None,
        typer.Option(
            metavar="STUDY", help="Add all results to this study: a study file, or a name (default: the files' study)."
        ),
    ] = None,
    storage: Storage = None,
    directory: Runs = RUNS,
) -> None:
    """Add the results of files to a study, which is created if it does not exist.

    `rankopt run` then trains only what is missing. A result that the study has is kept; a complete result replaces a
    failed one; of two results of one trial that differ, the first is kept. A damaged line is reported and skipped, and
    the exit code is 2.
    """
    from rankopt.study.results_file import read_results
    from rankopt.study.results_transfer import add_records

    reading = read_results(files)
    store = _destination(reading, into, storage, directory)
    done = add_records(store, reading.entries)
    added, there, every = plural(done.trials, "result"), done.merged.duplicates, len(done.merged.trials)
    print(f"study {store.name}: {added} added, {there} there already, {every} in all")
    tell(reading, done.merged, done.problems)
    finish(reading)


def _destination(reading: Reading, into: str | None, storage: str | None, directory: Path) -> StudyStore:
    """The open store of the study that results are imported into; created where the storage does not have it."""
    from rankopt.study.contents import local_contents
    from rankopt.study.results_merge import merge
    from rankopt.study.run import keep
    from rankopt.study.storage import StudyStore
    from rankopt.study.storage_url import sqlite_url

    merged, file = merge(reading.entries), None
    if into is not None and (not storage or Path(into).is_file()):
        file = study_file(into, None, directory)
    if into is None and not merged.studies:
        raise ValueError("the results files have no study line: name the study's file with --into STUDY.yaml")
    name = file.study.name if file else into or merged.name
    folder = directory / name
    if not storage:
        folder.mkdir(parents=True, exist_ok=True)
    store = StudyStore(storage or sqlite_url(folder), name, folder)
    if store.exists() or (into and not file):
        store.open()
        return store
    spec = merged.spec() if file is None else _identified(file, local_contents(_trials(file)))
    store.create(spec)
    keep(spec, folder)
    return store


def _identified(file: StudyFile, contents: Contents) -> StudySpec:
    """A file's study as `rankopt run` would store it."""
    from rankopt.study.preflight import directed

    return file.study.model_copy(update={"contents": contents, "objectives": directed(file, _trials(file))})


def _trials(file: StudyFile) -> Iterator[TrialSpec]:
    """The valid trials of a study; of a search, examples."""
    for assignment in file.assignments():
        with suppress(ValueError):
            yield file.study.trial(assignment)


def report_files(files: list[Path], study: str | None, directory: Path, out: Path | None, latex: bool = False) -> None:
    """Write a report of results files alone; see `merged_files`."""
    reading, merged, spec = merged_files(files, study, directory)
    from rankopt.report import write_report

    found = merged.stored(reading.problems, spec)
    tell(reading, merged)
    print(write_report(spec, found.results, out or Path("reports") / spec.name, search=found.search, latex=latex))
    finish(reading)


def merged_files(files: list[Path], study: str | None, directory: Path) -> tuple[Reading, Merged, StudySpec]:
    """Read and merge results files, and find their study.

    Args:
        files: results files, the most trusted first.
        study: a study file, whose spec is used with all results; a name, to select among the files' studies; or None.
        directory: folder of the studies' folders.
    """
    reading, merged, file = _merged(files, study, directory)
    return reading, merged, _identified(file, merged.contents(_trials(file))) if file else merged.spec()


def _merged(files: list[Path], study: str | None, directory: Path) -> tuple[Reading, Merged, StudyFile | None]:
    """Read and merge results files; see `merged_files`. The study's file, if one is given."""
    from rankopt.study.results_file import read_results
    from rankopt.study.results_merge import merge, of_study

    collect_rarely()
    reading = read_results(files)
    if study is not None and Path(study).is_file():
        return reading, merge(reading.entries), study_file(study, None, directory)
    return reading, merge(reading.entries if study is None else of_study(reading.entries, study)), None


def tell(reading: Reading, merged: Merged, more: Sequence[str] = ()) -> None:
    """Print the problems and conflicts of results files to stderr."""
    for line in (*reading.problems, *merged.conflicts, *more):
        print(f"rankopt: {line}", file=sys.stderr)


def finish(reading: Reading) -> None:
    """Exit with code 2 if a line was damaged."""
    if reading.problems:
        raise typer.Exit(2)
