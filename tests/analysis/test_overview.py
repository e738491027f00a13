"""The overview behind `rankopt show`: every result has a row that says whether it counts."""

from __future__ import annotations

from typing import Any

from synthetic_results import failure, grid, make, trials

from rankopt.analysis.overview import overview
from rankopt.core.study_spec import StudySpec


def test_every_dimension_and_every_state() -> None:
    """Values of further dimensions are named; results outside the plan, failed and damaged ones are marked."""
    base = grid().base
    study = StudySpec(name="s", base=base, space={"training.steps": [100, 200], "seed": [0, 1]})
    first, second, third, fourth = trials(study)
    complete, outside, damaged = make([first, second, third])
    results = [complete, outside, damaged.model_copy(update={"metrics": ()}), failure(fourth, "out of memory")]
    rows: list[dict[str, Any]] = overview(study, results, {first.key, third.key, fourth.key})
    assert [row["status"] for row in rows] == [
        "complete", "complete, not in the plan", "damaged: metrics must not be empty in a complete result",
        "failed: out of memory",
    ]  # fmt: skip
    assert [row["configuration"] for row in rows] == ["steps 100", "steps 100", "steps 200", "steps 200"]
    assert (rows[0]["kept"], rows[0]["report"]) == (complete.own.kept, complete.score("report"))
    assert [row["report"] for row in rows[2:]] == [None, None]


def test_no_further_dimension_no_column() -> None:
    study = grid()
    assert "configuration" not in overview(study, make(trials(study)[:2]), set())[0]


def test_a_spec_without_names() -> None:
    """A damaged spec is one marked row, not a traceback."""
    study = grid()
    (result,) = make(trials(study)[:1])
    (row,) = overview(study, [result.model_copy(update={"spec": {"task": "rte"}})], set())
    assert row["status"].startswith("damaged: spec.task must be")
    assert (row["task"], row["allocator"]) == (None, None)
