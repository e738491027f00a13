"""The objective's own words for a trial; what it does is tested with the worker that calls it (`test_worker.py`)."""

from __future__ import annotations

from typing import Any

import pytest

from rankopt.core.study_spec import StudySpec
from rankopt.study.objective import trial_label


@pytest.mark.parametrize(
    ("base", "space", "expected"),
    [
        ({}, {}, "rte uniform seed 0"),
        ({"budget": {"mean_rank": 2}}, {}, "rte uniform mean rank 2 seed 0"),
        ({"budget": {"parameters": 1000}, "seed": 3}, {}, "rte uniform parameters 1000 seed 3"),
        ({}, {"training.lr": [1e-3, 2e-3]}, "rte uniform seed 0, lr 0.001"),
        ({}, {"seed": [0, 1]}, "rte uniform seed 0"),
    ],
)
def test_a_label_names_what_varies(base: dict[str, Any], space: dict[str, Any], expected: str) -> None:
    """Task, allocator, budget and seed, and the values of all other dimensions of the study."""
    data = {"task": {"name": "rte"}, "allocator": {"name": "uniform"}, **base}
    study = StudySpec(name="s", base=data, space=space)
    assert trial_label(study, study.trial(next(study.assignments()))) == expected


def test_a_found_pattern_is_labelled_by_how_it_was_found() -> None:
    """Its ranks, one per module and another dictionary at every seed, would fill the terminal."""
    found = {"name": "static", "ranks": {"*.query": 3, "*.value": 1}, "found": "adalora"}
    data = {"task": {"name": "rte"}, "allocator": {"name": "uniform"}}
    study = StudySpec(
        name="s", base=data, space={"allocator, training.lr": [[{"name": "uniform"}, 1e-3], [found, 1e-2]]}
    )
    _, again = (trial_label(study, study.trial(assignment)) for assignment in study.assignments())
    assert again == "rte found: adalora seed 0, lr 0.01"
