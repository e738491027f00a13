"""Every number of a report, recomputed from its results by a script that shares no code with rankopt."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from recompute import compare
from synthetic_results import grid, make, trials

from rankopt.api.study import report_of
from rankopt.core.result import TrialResult
from rankopt.report import write_report
from rankopt.study.results_file import write_results
from rankopt.study.results_format import StudyRecord, TrialRecord
from rankopt.study.results_transfer import store_records
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url

QUICKSTART = Path(__file__).parents[1] / "reports" / "quickstart"


COMMITTED = sorted(path.parent for path in QUICKSTART.parent.glob("*/data.csv"))


@pytest.mark.parametrize("report", COMMITTED, ids=lambda path: path.name)
def test_the_committed_reports(report: Path) -> None:
    assert compare(report) == []


def test_two_tasks(tmp_path: Path) -> None:
    """Seeds within tasks, t-tests, parameters that differ from the control's."""
    study = grid(space={"allocator": [{"name": "uniform"}, {"name": "random"}, {"name": "adalora"}]})
    results: list[TrialResult] = make(trials(study))
    record = StudyRecord.of(study)
    records = [record, *(TrialRecord(study=record.study, result=result) for result in results)]
    write_results(records, tmp_path / "results.jsonl")
    write_report(study, results, tmp_path)
    assert compare(tmp_path) == []


def copied(report: Path, folder: Path) -> Path:
    """A report's files without its figures, to be changed."""
    for file in report.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    return folder


def test_lower_is_better(tmp_path: Path) -> None:
    """Perplexity has no range. A changed number of a curve is found."""
    report = QUICKSTART.with_name("e2e_smollm2")
    path = copied(report, tmp_path) / "curves.csv"
    text = path.read_text()
    head, first, *_ = text.splitlines()
    for column in ("aurac", "at_score", "hypervolume_low", "aurac_high"):
        value = dict(zip(head.split(","), first.split(","), strict=True))[column]
        path.write_text(text.replace(value, "0.5", 1))
        assert compare(tmp_path)[0].startswith(f"curves.csv: {column} of e2e, adalora is 0.5")


def test_a_changed_probability_of_the_front(tmp_path: Path) -> None:
    """The drawn share is compared with the exact probability, within the error of the draws."""
    path = copied(QUICKSTART, tmp_path) / "curves.csv"
    lines = path.read_text().splitlines()
    index = next(k for k, line in enumerate(lines) if k and float(line.rsplit(",", 1)[1] or 0) > 0.01)
    start, share = lines[index].rsplit(",", 1)
    lines[index] = f"{start},{float(share) - 0.2}"
    path.write_text("\n".join(lines) + "\n")
    assert compare(tmp_path)[0].startswith("curves.csv: front_probability of mini-cola")


def test_wandb_offline_files(tmp_path: Path, finished: tuple[Path, Any]) -> None:
    """Those that a run wrote. A changed number in one of their tables is found."""
    pytest.importorskip("wandb")
    folder = finished[0] / "runs" / "tiny"
    store = StudyStore(sqlite_url(folder), "tiny", folder)
    spec = store.open()
    report_of(store, spec, tmp_path)
    write_results(store_records(store, predictions=True), tmp_path / "results.jsonl")
    assert compare(tmp_path, folder / "wandb") == []
    shutil.copytree(folder / "wandb", tmp_path / "wandb")
    (table,) = tmp_path.glob("wandb/offline-run-*-tiny-study/files/media/table/averages_*.table.json")
    data = json.loads(table.read_text())
    data["data"][0][data["columns"].index("score")] += 0.001
    table.write_text(json.dumps(data))
    (problem,) = compare(tmp_path, tmp_path / "wandb")
    assert problem.startswith("W&B: score of averages of ('sst2', ")


@pytest.mark.parametrize("column", ["examples_low", "examples_high", "mcnemar"])
def test_intervals_over_examples(column: str, tmp_path: Path, finished: tuple[Path, Any]) -> None:
    """From predictions, with other resamples than the report's. A changed number is found."""
    folder = finished[0] / "runs" / "tiny"
    store = StudyStore(sqlite_url(folder), "tiny", folder)
    report_of(store, store.open(), tmp_path)
    write_results(store_records(store, predictions=True), tmp_path / "results.jsonl")
    with (tmp_path / "comparisons.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    row = next(row for row in rows if row["setting"])
    row[column] = str(float(row[column]) + 0.3)
    with (tmp_path / "comparisons.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        writer.writeheader()
        writer.writerows(rows)
    assert compare(tmp_path)[0].startswith(f"comparisons.csv: {column} of {row['allocator']} is ")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("report.md", "| 0.860 | 0.013 |", "| 0.861 | 0.013 |"),
        ("index.html", ">0.860<", ">0.861<"),
        ("averages.csv", "0.86009086", "0.86009186"),
        ("comparisons.csv", "0.152401", "0.152501"),
        ("data.csv", ",1792,", ",1793,"),
    ],
)
def test_a_changed_number_is_found(name: str, old: str, new: str, tmp_path: Path) -> None:
    copied(QUICKSTART, tmp_path)
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1))
    (problem, *_) = compare(tmp_path)
    assert problem.startswith(name)
