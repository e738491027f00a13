"""Failed trials, missing results, and results outside the plan."""

from __future__ import annotations

from typing import Any

import pytest
from synthetic_results import blocks, make, searched, trials

from rankopt.analysis.search import SearchRecord
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec


def test_results_outside_the_plan(study: StudySpec) -> None:
    """They are counted and listed with their score, and are in no other table."""
    stranger = study.trial({"seed": 99})
    found = blocks(study, make([*trials(study)[:2], stranger]))
    text = " ".join(found["failures"].bullets)
    assert "1 result outside the study's plan" in text
    assert "58 of 60 planned trials have no complete result" in text
    (outside,) = (table.frame for table in found["failures"].tables if table.title == "Results outside the plan")
    assert list(outside["key"]) == [stranger.key]
    assert outside["result"].iloc[0].startswith("report matthews 0.")
    assert 99 not in set(found["scores"].tables[-1].frame["seed"])


def test_the_plan_is_the_storages(study: StudySpec) -> None:
    """Keys that the storage planned, such as patterns that follow from a result, are part of the plan."""
    follower = study.trial({"seed": 99})
    found = blocks(
        study, make([*trials(study), follower]), SearchRecord(plan=[s.key for s in (*trials(study), follower)])
    )
    assert "outside" not in " ".join(found["failures"].bullets)
    assert 99 in set(found["scores"].tables[-1].frame["seed"])


def test_an_invalid_proposal(study: StudySpec) -> None:
    """Its reason is shown although its spec does not decode."""
    spec, results = searched(study)
    broken = {**results[0].spec, "budget": {"mean_rank": 400.0}}
    failed = TrialResult(key="0" * 12, spec=broken, status="failed", reason="budget.mean_rank must be at most 16")
    found = blocks(spec, [*results, failed])
    assert list(found["failures"].tables[0].frame["reason"]) == ["budget.mean_rank must be at most 16"]
    assert found["provenance"]


DAMAGED: dict[str, tuple[dict[str, Any], str]] = {
    "no points": ({"points": ()}, "points must not be empty"),
    "no metrics": ({"metrics": ()}, "metrics must not be empty"),
    "no layers": ({"layers": {}}, "layers must not be empty"),
    "an unknown field in its spec": (
        {"spec": {"task": {"name": "rte"}, "allocator": {"name": "uniform"}, "tusk": {}}},
        "spec.tusk is not a known field",
    ),
    "another metric": ({"metrics": ("bleu",)}, "must have a finite 'bleu' on split 'search'"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_result_is_a_failure(study: StudySpec, case: str) -> None:
    """The report is made without it and says which trial is damaged, how, and what to do."""
    changes, words = DAMAGED[case]
    good, bad = make(trials(study)[:2])
    found = blocks(study, [good, bad.model_copy(update=changes)])
    (row,) = found["failures"].tables[0].frame.to_dict("records")
    assert row["key"] == bad.key
    assert words in row["reason"]
    assert f"rankopt delete {study.name} --trial {bad.key}" in row["reason"]
    assert list(found["scores"].tables[-1].frame["key"]) == [good.key]


@pytest.mark.parametrize("field", ["search", "report", "pattern"])
def test_a_damaged_point_is_a_failure(study: StudySpec, field: str) -> None:
    """A score that is not a number, a missing report split, or ranks of other layers."""
    good, bad = make(trials(study)[:2])
    nan = {"search": {"matthews": float("nan")}, "report": {}, "pattern": type(bad.own.pattern)({"other": 2})}
    point = bad.own.model_copy(update={field: nan[field]})
    found = blocks(study, [good, bad.model_copy(update={"points": (point,)})])
    assert list(found["failures"].tables[0].frame["key"]) == [bad.key]


def test_unreadable_records_are_listed(study: StudySpec) -> None:
    """The report is made of the others, or of none."""
    record = SearchRecord(unreadable=["the result of attempt 3 cannot be read (points is required)"])
    for results in (make(trials(study)[:2]), []):
        block = blocks(study, results, record)["failures"]
        assert "1 stored record cannot be read: listed below and left out." in block.bullets
        (table,) = (table.frame for table in block.tables if table.title == "Unreadable records")
        assert list(table["problem"]) == list(record.unreadable)
