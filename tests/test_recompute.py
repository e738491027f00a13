"""Every number of a report, recomputed from its results by a script that shares no code with rankopt."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from recompute import compare
from synthetic_results import grid, make, trials

from rankopt.core.result import TrialResult
from rankopt.report import write_report
from rankopt.study.results_file import write_results
from rankopt.study.results_format import StudyRecord, TrialRecord

QUICKSTART = Path(__file__).parents[1] / "reports" / "quickstart"


def test_the_committed_report() -> None:
    """Five seeds of one task; one training collapsed, so that signs are flipped."""
    assert compare(QUICKSTART) == []


def test_two_tasks(tmp_path: Path) -> None:
    """Seeds within tasks, t-tests, parameters that differ from the control's."""
    study = grid(space={"allocator": [{"name": "uniform"}, {"name": "random"}, {"name": "adalora"}]})
    results: list[TrialResult] = make(trials(study))
    record = StudyRecord.of(study)
    records = [record, *(TrialRecord(study=record.study, result=result) for result in results)]
    write_results(records, tmp_path / "results.jsonl")
    write_report(study, results, tmp_path)
    assert compare(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("report.md", "| 0.766 | 0.050 |", "| 0.767 | 0.050 |"),
        ("index.html", ">0.766<", ">0.767<"),
        ("averages.csv", "0.76561049", "0.76561059"),
        ("comparisons.csv", "0.375", "0.376"),
        ("data.csv", ",1792,", ",1793,"),
    ],
)
def test_a_changed_number_is_found(name: str, old: str, new: str, tmp_path: Path) -> None:
    for file in ("results.jsonl", "report.md", "index.html", "averages.csv", "comparisons.csv", "data.csv"):
        shutil.copy(QUICKSTART / file, tmp_path)
    text = (tmp_path / name).read_text()
    assert old in text
    (tmp_path / name).write_text(text.replace(old, new, 1))
    (problem, *_) = compare(tmp_path)
    assert problem.startswith(name)
