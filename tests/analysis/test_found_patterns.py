"""Found patterns against their finders: which trainings are paired, and the correction over finders."""

from __future__ import annotations

import pytest
from analysis_results import trial
from scipy import stats

from rankopt.analysis.averages import average
from rankopt.analysis.found_patterns import found_patterns
from rankopt.analysis.frame import tidy
from rankopt.core.result import TrialResult

SEEDS = range(4)
LOSSES = (0.02, 0.03, 0.025, 0.035)


def arm(name: str, *scores: float) -> list[TrialResult]:
    """Trials of an allocator."""
    return [trial(score, seed=seed, allocator={"name": name}) for seed, score in zip(SEEDS, scores, strict=True)]


def again(found: str, *scores: float) -> list[TrialResult]:
    """Trials of the patterns that an allocator found: another one at every seed."""
    return [
        trial(score, seed=seed, allocator={"name": "static", "found": found, "ranks": {"*": 1, "0.query": seed + 1}})
        for seed, score in zip(SEEDS, scores, strict=True)
    ]


def test_every_finder_is_compared_with_its_own_patterns() -> None:
    """The p-value is that of a paired t-test, times the number of finders."""
    results = [
        *arm("uniform", 0.6, 0.6, 0.61, 0.6),
        *arm("adalora", 0.8, 0.81, 0.8, 0.82),
        *again("adalora", *(score - loss for score, loss in zip((0.8, 0.81, 0.8, 0.82), LOSSES, strict=True))),
        *arm("sora", 0.7, 0.7, 0.7, 0.7),
        *again("sora", 0.69, 0.71, 0.7, 0.7),
    ]
    points = tidy(results)
    rows = found_patterns(results, points, average(points)).set_index("finder")
    assert list(rows.index) == ["adalora", "sora"]
    assert rows["difference"].to_dict() == pytest.approx({"adalora": -0.0275, "sora": 0.0})
    p = float(stats.ttest_1samp(LOSSES, 0).pvalue)
    assert rows.loc["adalora", "p_holm"] == pytest.approx(2 * p)
    assert (rows.loc["adalora", "verdict"], rows.loc["sora", "verdict"]) == ("worse", "not significant")
    assert rows.loc["sora", "p_holm"] == 1


def test_patterns_without_their_finder_are_not_compared() -> None:
    results = [*arm("uniform", 0.6, 0.6, 0.61, 0.6), *again("adalora", 0.7, 0.7, 0.71, 0.7)]
    points = tidy(results)
    assert found_patterns(results, points, average(points)).empty
