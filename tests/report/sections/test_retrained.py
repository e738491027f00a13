"""Found patterns beside the trainings that found them."""

from __future__ import annotations

import statistics

import pytest
from synthetic_results import blocks, grid, make, result, trials

from rankopt.analysis.search import SearchRecord
from rankopt.core.trial_spec import AllocatorSpec
from rankopt.report.conclusion import conclusion
from rankopt.report.evidence import Evidence

SPACE = {"task.name": ["mini-cola"], "allocator": [{"name": "uniform"}, {"name": "adalora"}]}


def test_the_difference_to_the_method_that_found_the_pattern() -> None:
    """Paired by budget and seed: the mean of the patterns' scores minus that of the runs that found them."""
    study = grid(space=SPACE, search={"name": "grid", "retrain": ["adalora"]})
    own = trials(study)
    results = make(own)
    for spec, adaptive in zip(own, list(results), strict=True):
        if spec.method.name == "adalora":
            pattern, kept = adaptive.own.pattern, adaptive.own.kept
            static = AllocatorSpec(name="static", found="adalora", ranks=dict(pattern))
            again = result(spec.model_copy(update={"allocator": static}))
            points = (again.own.model_copy(update={"pattern": pattern, "kept": kept}),)
            results.append(again.model_copy(update={"points": points}))
    by_name: dict[str, list[float]] = {}
    for one in results:
        by_name.setdefault(one.spec["allocator"]["name"], []).append(one.score("report"))
    record = SearchRecord(plan=tuple(one.key for one in results))
    (table,) = blocks(study, results, record)["retrained"].tables
    (row,) = table.frame.to_dict("records")
    assert (row["pattern of"], row["seeds"], row["budgets"]) == ("adalora", 3, 2)
    expected = statistics.mean(by_name["static"]) - statistics.mean(by_name["adalora"])
    assert row["difference"] == pytest.approx(expected)
    assert row["low"] < row["difference"] < row["high"]
    assert "task" not in table.frame
    evidence = Evidence.of(study, results, {}, record)
    (sentence,) = (one for one in conclusion(evidence) if one.label == "Found patterns")
    side = "above" if expected >= 0 else "below"
    assert f"that of adalora is {abs(expected):.3f} {side} adalora itself (interval" in sentence.text
    assert f"{abs(expected):.3f} {side} adalora (p = {row['p (corrected)']:.2g})" in sentence.brief
    assert set(evidence.points["allocator"]) == {"uniform", "adalora", "found: adalora"}
    assert {evidence.words(row) for _, row in evidence.chosen.iterrows()} == {""}


def test_a_study_without_such_trainings_has_no_section() -> None:
    study = grid(space=SPACE)
    assert "retrained" not in blocks(study, make(trials(study)))
