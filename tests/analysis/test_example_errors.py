"""The paired bootstrap over examples: its size, what is shared, and what is missing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from analysis_results import trial
from stored_predictions import classes

from rankopt.analysis.averages import average
from rankopt.analysis.comparison import compare
from rankopt.analysis.example_errors import ExampleErrors
from rankopt.analysis.frame import CONTROL, tidy
from rankopt.analysis.pairs import pairs
from rankopt.core.result import TrialResult

OTHER = {"name": "adalora"}
LABELS = np.random.default_rng(1).integers(2, size=400)


def study(hits: np.ndarray, others: np.ndarray, labels: np.ndarray = LABELS) -> tuple[list[TrialResult], dict]:
    """Trials of the control and another allocator with these hits, `(seeds, examples)`, and their predictions."""
    results, stored = [], {}
    for side, allocator in ((hits, OTHER), (others, {"name": "uniform"})):
        for seed, row in enumerate(side):
            results.append(trial(float(row.mean()), seed=seed, allocator=allocator))
            stored[results[-1].key] = classes(labels, row)
    return results, stored


def errors(results: list[TrialResult], stored: dict[str, bytes]) -> tuple[ExampleErrors, dict, object]:
    points = tidy(results)
    (pair,) = pairs(points, average(points), CONTROL)
    weights: dict[str, float] = {}
    for trials in pair.trials.values():
        weights |= {key: weight / len(pair.trials) for key, weight in trials.items()}
    return ExampleErrors(points, [pair], stored.get), {"rte": weights}, pair


def test_one_training_has_the_error_of_paired_accuracies() -> None:
    random = np.random.default_rng(0)
    hits = random.random((1, 400)) < 0.8
    others = np.where(random.random((1, 400)) < 0.9, hits, ~hits)
    found, weights, _ = errors(*study(hits, others))
    paired = np.std(hits.astype(float) - others) / 400**0.5
    assert found.error(weights) == pytest.approx(paired, rel=0.1)
    assert found.error(weights) < 0.8 * np.hypot(np.std(hits), np.std(others)) / 400**0.5
    assert found.size(weights) == 400


def test_examples_are_shared_by_seeds() -> None:
    """Three trainings with the same predictions know no more about other examples than one."""
    random = np.random.default_rng(0)
    one, other = random.random((1, 400)) < 0.8, random.random((1, 400)) < 0.7
    single, weights, _ = errors(*study(one, other))
    triple, thirds, _ = errors(*study(one.repeat(3, 0), other.repeat(3, 0)))
    assert triple.error(thirds) == pytest.approx(single.error(weights))


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored, key: stored.pop(key),
        lambda stored, key: stored.update({key: b"no archive"}),
        lambda stored, key: stored.update({key: classes(1 - LABELS, LABELS > 0)}),
    ],
)
def test_missing_damaged_or_other_examples(damage: Callable[[dict, str], None]) -> None:
    results, stored = study(np.ones((2, 400), bool), np.ones((2, 400), bool))
    damage(stored, results[-1].key)
    found, weights, pair = errors(results, stored)
    assert np.isnan(found.error(weights))
    assert np.isnan(found.mcnemar(pair))


def test_mcnemar_pairs_the_seeds() -> None:
    hits = np.ones((2, 400), bool)
    others = hits.copy()
    others[:, :9] = False
    found, _, pair = errors(*study(hits, others))
    assert 0.002 < found.mcnemar(pair) < 0.003  # chi^2 = 9: nine examples, each with the same two answers


def verdicts(results: list[TrialResult], stored: dict[str, bytes]) -> dict:
    points = tidy(results)
    (row,) = compare(points, average(points), predictions=stored.get).arms.to_dict("records")
    return row


def test_a_comparison_has_all_intervals() -> None:
    random = np.random.default_rng(0)
    row = verdicts(*study(random.random((4, 400)) < 0.8, random.random((4, 400)) < 0.7))
    assert row["examples"] == 400
    assert row["both_low"] < min(row["low"], row["examples_low"])
    assert row["both_high"] > max(row["high"], row["examples_high"])


def test_one_seed_has_an_interval_over_examples_alone() -> None:
    random = np.random.default_rng(0)
    row = verdicts(*study(random.random((1, 400)) < 0.8, random.random((1, 400)) < 0.7))
    assert row["examples_low"] < row["difference"] < row["examples_high"]
    assert np.isnan(row["both_low"])
    assert np.isnan(row["low"])


@pytest.mark.parametrize("seeds", [2, 5])
def test_the_interval_over_both_covers(seeds: int) -> None:
    """No true difference; trainings vary with their seed, and 100 examples are drawn anew in every study."""
    random = np.random.default_rng(seeds)
    missed, studies = 0, 60
    labels = np.zeros(100, int)
    for _ in range(studies):
        gap = random.normal(0, 0.4, 100)  # at some examples one side is better, at others the other side
        skill = random.normal(0, 0.1, (2, seeds, 1))
        chances = [1 / (1 + np.exp(-(1 + side * gap + own))) for side, own in zip((1, -1), skill, strict=True)]
        row = verdicts(*study(*(random.random((seeds, 100)) < chance for chance in chances), labels))
        missed += row["both_low"] > 0 or row["both_high"] < 0
    assert missed <= 0.05 * studies + 3 * (0.05 * 0.95 * studies) ** 0.5
