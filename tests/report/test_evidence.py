"""Evidence: which results count, and what is derived from them."""

from __future__ import annotations

import pytest
from synthetic_results import grid, make, searched, trials

from rankopt.analysis.search import SearchRecord
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report.evidence import Evidence, cleaned, planned_keys


def test_a_key_counts_once(results: list[TrialResult]) -> None:
    """A complete result is preferred to a failed one of the same trial."""
    complete = next(result for result in results if result.status == "complete")
    failed = complete.model_copy(update={"status": "failed", "points": (), "reason": "killed"})
    study = StudySpec(name="any", base={})
    for order in ([failed, complete, complete], [complete, failed]):
        assert Evidence.of(study, order, {}).results == (complete,)


def test_a_search_has_no_plan(study: StudySpec) -> None:
    spec, results = searched(study)
    assert planned_keys(spec, SearchRecord()) == set()
    assert Evidence.of(spec, results, {}).unplanned == ()


def test_a_damaged_repeat_does_not_hide_a_good_result(study: StudySpec) -> None:
    (good,) = make(trials(study)[:1])
    damaged = good.model_copy(update={"points": ()})
    for order in ([damaged, good], [good, damaged]):
        assert Evidence.of(study, order, {}).results == (good,)


def test_texts_are_cleaned(study: StudySpec) -> None:
    """ANSI sequences go, in keys of mappings too; everything else stays, also a score that is not a number."""
    (result,) = make(trials(study)[:1])
    assert cleaned(result) is result
    noisy = result.model_copy(update={"environment": {"de\x07vice": "\x1b[1mcpu"}, "notes": ("a\x1b[0m",)})
    assert (
        cleaned(noisy).model_dump()
        == result.model_copy(update={"environment": {"device": "cpu"}, "notes": ("a",)}).model_dump()
    )


def test_the_typical_budget_is_the_median(study: StudySpec, results: list[TrialResult]) -> None:
    assert Evidence.of(study, results, {}).typical_budget("mini-cola") == 2.0
    assert Evidence.of(study, [], {}).settings == []


@pytest.mark.parametrize("most", [0, 10**9])
def test_the_front_meets_the_constraint(study: StudySpec, most: int) -> None:
    spec, results = searched(study, constraints={"parameters": most})
    front = Evidence.of(spec, results, {}).front("mini-cola")
    assert bool(len(front)) == (most > 0)
    assert list(front["search"]) == sorted(front["search"])


def test_missing_trials_are_counted_with_those_of_tuning() -> None:
    study = grid(tune={"training.lr": [1e-3, 5e-4]}, space={"task.name": ["mini-cola"], "budget.mean_rank": [2.0]})
    specs = trials(study)
    record = SearchRecord(plan=[spec.key for spec in specs])
    assert Evidence.of(study, make(specs), {}, record).missing == frozenset()
    assert Evidence.of(study, make(specs[2:]), {}, record).missing == {spec.key for spec in specs[:2]}
