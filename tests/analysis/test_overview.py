"""The overview behind `rankopt show`: every result has a row that says whether it counts."""

from __future__ import annotations

from typing import Any

from synthetic_results import failure, grid, make, trials

from rankopt.analysis.overview import overview
from rankopt.core.study_spec import StudySpec


def test_every_dimension_and_every_state() -> None:
    """Values of further dimensions are named; results outside the plan and failed ones are marked."""
    base = grid().base
    study = StudySpec(name="s", base=base, space={"training.steps": [100, 200], "seed": [0, 1]})
    first, second, third, _ = trials(study)
    complete, outside = make([first, second])
    rows: list[dict[str, Any]] = overview(
        study, [complete, outside, failure(third, "out of memory")], {first.key, third.key}
    )
    assert [row["status"] for row in rows] == ["complete", "complete, not in the plan", "failed: out of memory"]
    assert [row["configuration"] for row in rows] == ["steps 100", "steps 100", "steps 200"]
    assert (rows[0]["kept"], rows[0]["report"]) == (complete.own.kept, complete.score("report"))
    assert rows[2]["report"] is None


def test_no_further_dimension_no_column() -> None:
    study = grid()
    assert "configuration" not in overview(study, make(trials(study)[:2]), set())[0]


def test_a_spec_without_names() -> None:
    """A failed result may have an invalid spec; it is one row, not a traceback."""
    study = grid()
    (trial, *_) = trials(study)
    (row,) = overview(study, [failure(trial, "invalid").model_copy(update={"spec": {"task": "rte"}})], {trial.key})
    assert row["status"] == "failed: invalid"
    assert (row["task"], row["allocator"]) == (None, None)
