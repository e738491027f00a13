"""Commands for results files: `rankopt results export` and `rankopt results import`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankopt.cli.options import RUNS, Runs, Storage, Study, open_store, study_file

if TYPE_CHECKING:
    from rankopt.core.study_spec import StudySpec
    from rankopt.study.results_file import Merged, Reading

app = typer.Typer(help="Export results to a file that travels, or import them.", no_args_is_help=True)
Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Results files.")]


@app.command("export")
def export(
    study: Study,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Write this file; an existing one is replaced.")],
    storage: Storage = None,
    directory: Runs = RUNS,
) -> None:
    """Write the results of a study to a file: JSON Lines, one trial a line."""
    store, _ = open_store(study, storage, directory)
    from rankopt.study.results_file import write_results
    from rankopt.study.transfer import store_records

    records = store_records(store)
    write_results(records, out)
    print(f"{out}: {len(records) - 1} results")


@app.command("import")
def import_(
    files: Files,
    into: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Add to this study: a study file, or a name (default: as in the files)."),
    ] = None,
    storage: Storage = None,
    directory: Runs = RUNS,
) -> None:
    """Add the results of files to a study, which is created if it does not exist.

    `rankopt run` then trains only what is missing. A result that the study has is kept; a complete result replaces a
    failed one; of two results of one trial that differ, the first is kept. A damaged line is reported and skipped, and
    the exit code is 2.
    """
    from rankopt.study.results_file import merge, read_results

    reading = read_results(files)
    spec = merge(reading.entries).spec() if into is None else study_file(into, None, directory).study
    from rankopt.study.run import keep
    from rankopt.study.storage import StudyStore
    from rankopt.study.storage_url import sqlite_url
    from rankopt.study.transfer import add_records

    folder = directory / spec.name
    folder.mkdir(parents=True, exist_ok=True)
    store = StudyStore(storage or sqlite_url(folder), spec.name, folder)
    if store.exists():
        spec = store.open()
    else:
        store.create(spec)
        keep(spec, folder)
    before = len(store.results(planned=False))
    merged = add_records(store, reading.entries)
    after = len(store.results(planned=False))
    print(f"study {spec.name}: {after - before} results added, {merged.duplicates} there already, {after} in all")
    tell(reading, merged)
    finish(reading)


def report_files(files: list[Path], study: str | None, directory: Path, out: Path | None) -> None:
    """Write a report of results files alone; see `merged_files`."""
    reading, merged, spec = merged_files(files, study, directory)
    from rankopt.analysis.search import Proposal, SearchRecord
    from rankopt.report import write_report

    results = merged.results()
    record = SearchRecord(plan=[result.key for result in results])
    if not spec.listed:
        record = SearchRecord([Proposal(proposal.keys, proposal.state) for proposal in merged.proposals])
    tell(reading, merged)
    print(write_report(spec, results, out or Path("reports") / spec.name, search=record))
    finish(reading)


def merged_files(files: list[Path], study: str | None, directory: Path) -> tuple[Reading, Merged, StudySpec]:
    """Read and merge results files, and find their study.

    Args:
        files: results files, the most trusted first.
        study: a study file, whose spec is used with all results; a name, to select among the files' studies; or None.
        directory: folder of the studies' folders.
    """
    from rankopt.study.results_file import merge, of_study, read_results

    reading = read_results(files)
    if study is not None and Path(study).is_file():
        return reading, merge(reading.entries), study_file(study, None, directory).study
    merged = merge(reading.entries if study is None else of_study(reading.entries, study))
    return reading, merged, merged.spec()


def tell(reading: Reading, merged: Merged) -> None:
    """Print the problems and conflicts of results files to stderr."""
    for line in (*reading.problems, *merged.conflicts):
        print(f"rankopt: {line}", file=sys.stderr)


def finish(reading: Reading) -> None:
    """Exit with code 2 if a line was damaged."""
    if reading.problems:
        raise typer.Exit(2)
