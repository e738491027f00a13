"""Comparisons: what is paired, one verdict for the study, verdicts that agree with their intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from analysis_results import trial

from rankopt.analysis.averages import average
from rankopt.analysis.comparison import RANGES, Comparison, compare
from rankopt.analysis.frame import tidy
from rankopt.core.result import TrialResult
from rankopt.tasks.metrics import METRICS

OTHER = {"name": "adalora"}


def compared(results: list[TrialResult]) -> Comparison:
    points = tidy(results)
    return compare(points, average(points))


def several(shift: float, seeds: int = 5, noise: float = 0.01, **fields: Any) -> list[TrialResult]:
    """Control and another allocator, at two tasks and two budgets."""
    random = np.random.default_rng(0)
    return [
        trial(0.5 + shift * bool(allocator) + random.normal(0, noise), seed=seed, task={"name": task}, **more, **fields)
        for task in ("rte", "sst2")
        for budget in (1.0, 2.0)
        for seed in range(seeds)
        for allocator in (None, OTHER)
        for more in [{"budget": {"mean_rank": budget}} | ({"allocator": OTHER} if allocator else {})]
    ]  # fmt: skip


def test_pairs_agree_in_task_budget_and_seed() -> None:
    found = compared(
        [
            *(trial(0.60 + 0.01 * seed, seed=seed) for seed in (0, 1, 2)),
            *(trial(0.63 + 0.02 * seed, seed=seed, allocator=OTHER) for seed in (1, 2, 3)),
            trial(0.9, allocator=OTHER, budget={"mean_rank": 4.0}),
            trial(0.9, allocator=OTHER, task={"name": "cola"}),
        ]
    )
    (cell,) = found.cells.to_dict("records")
    assert (cell["setting"], cell["allocator"], cell["n"]) == ("rte", "adalora", 2)
    assert cell["difference"] == pytest.approx(((0.65 - 0.61) + (0.67 - 0.62)) / 2)
    (arm,) = found.arms.to_dict("records")  # with one cell both are the same test
    assert (arm["p"], arm["p_holm"], arm["verdict"]) == (cell["p"], cell["p_holm"], cell["verdict"])


def test_the_study_has_one_verdict_per_allocator() -> None:
    found = compared(several(0.1))
    (arm,) = found.arms.to_dict("records")
    assert (arm["settings"], arm["budgets"], arm["n"], arm["verdict"]) == (2, 2, 5, "better")
    assert arm["difference"] == pytest.approx(found.cells["difference"].mean())
    assert len(found.cells) == 4


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.02, 0.1, -0.1])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_an_interval_and_its_verdict_agree(shift: float, seeds: int) -> None:
    for table in compared(several(shift, seeds)):
        for row in table.to_dict("records"):
            excluded = row["low"] > 0 or row["high"] < 0
            assert excluded == (row["verdict"] in ("better", "worse"))


def test_nothing_is_printed_that_the_metric_cannot_show() -> None:
    """With two seeds no difference of accuracies below 1 is detectable. An interval of all of -1 to 1 is left out."""
    arms, cells = compared(several(0.05, seeds=2, noise=0.2))
    assert -1 < arms["low"].item() < arms["high"].item() < 1
    assert cells[["low", "high"]].isna().all(axis=None)
    for table in (arms, cells):
        assert set(table["verdict"]) == {"too few seeds"}
        assert all(math.isinf(size) for size in table["detectable"])
    assert set(METRICS) >= set(RANGES)


def test_one_seed_and_no_shared_seed() -> None:
    (one,) = compared([trial(0.5), trial(0.6, allocator=OTHER)]).arms.to_dict("records")
    assert (one["n"], one["difference"], one["verdict"]) == (1, pytest.approx(0.1), "one seed")
    (none,) = compared([trial(0.5), trial(0.6, allocator=OTHER, seed=1)]).arms.to_dict("records")
    assert (none["n"], none["verdict"]) == (0, "no shared seed")


def test_equal_scores_allow_no_test() -> None:
    for shift, verdict in ((0.0, "equal at every seed"), (0.125, "same difference at every seed")):
        results = [trial(0.5, seed=seed) for seed in (0, 1, 2)]
        results += [trial(0.5 + shift, seed=seed, allocator=OTHER) for seed in (0, 1, 2)]
        assert set(compared(results).arms["verdict"]) == {verdict}


def test_a_choice_among_configurations_is_counted() -> None:
    random = np.random.default_rng(0)
    results = [trial(random.normal(0.5, 0.01), seed=seed) for seed in range(5)]
    results += [
        trial(random.normal(0.5, 0.01), random.normal(0.5, 0.01), seed=seed, allocator=OTHER, training={"lr": 1e-3 * k})
        for seed in range(5)
        for k in (1, 2, 3)
    ]
    (row,) = compared(results).arms.to_dict("records")
    assert (row["configurations"], row["control_configurations"], row["n"]) == (3, 1, 3)


def test_rows_name_the_trials_that_were_compared() -> None:
    """The first trial of the chosen configuration and of the control's, so that a reader can tell them apart."""
    control = [trial(0.5, search=0.1 * k, training={"lr": 1e-3 * k}) for k in (1, 2)]
    other = trial(0.6, allocator={"name": "random"})
    (row,) = compared([*control, other]).cells.to_dict("records")
    assert (row["key"], row["control_key"]) == (other.key, control[1].key)


def test_lower_is_better_where_the_result_says_so() -> None:
    """A lower score is then an improvement: the difference is positive, and the verdict turns over."""
    draws = [(seed, 0.01 * seed * (-1) ** seed) for seed in range(6)]
    results = [
        *(trial(0.6 + noise, seed=seed) for seed, noise in draws),
        *(trial(0.3 - noise, seed=seed, allocator=OTHER) for seed, noise in draws),
    ]
    falling = [one.model_copy(update={"minimised": ("accuracy",)}) for one in results]
    for given, sign, word in ((falling, 1, "better"), (results, -1, "worse")):
        (row,) = compared(given).arms.to_dict("records")
        assert row["difference"] * sign > 0.2
        assert row["verdict"] == word
