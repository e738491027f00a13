"""The conclusion in sentences: best and worst, uncertainty, what to use, and what is not shown."""

from __future__ import annotations

import math
import re
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from stored_predictions import classes
from synthetic_results import grid, make, trials

from rankopt.analysis.search import SearchRecord
from rankopt.core.result import Point, TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report.conclusion import _over_examples, conclusion, interval, remarks
from rankopt.report.evidence import Evidence


def evidence(study: StudySpec, results: list[TrialResult] | None = None) -> Evidence:
    return Evidence.of(study, results or make(trials(study)), {})


def texts(found: Evidence) -> list[str]:
    return [sentence.text for sentence in conclusion(found)]


def small(**space: object) -> StudySpec:
    names = space.pop("allocators", ("uniform", "random"))
    allocators = [{"name": name} for name in names]  # type: ignore[attr-defined]
    return grid(space={"task.name": ["mini-cola"], "allocator": allocators, **space})


def moved(result: TrialResult, score: float) -> TrialResult:
    """The result with another Matthews correlation on the report split."""
    scores = {"validation": {"matthews": score, "accuracy": 0.6}}
    own = Point.model_validate(result.own.model_dump() | {"report": scores})
    return result.model_copy(update={"points": (own,)})


def test_best_and_worst_are_named_with_their_uncertainty() -> None:
    found = evidence(grid())
    best, use, limits = texts(found)
    arms = found.comparison.arms.set_index("allocator")
    assert best.startswith("Best: adalora, score ")
    assert best.endswith("Means over 2 budgets, 2 tasks and 3 seeds.")
    assert f"{arms.loc['adalora', 'difference']:.3f} above uniform" in best
    assert f"Worst: random, {-arms.loc['random', 'difference']:.3f} below uniform" in best
    assert ("significantly" in best) == (set(arms["verdict"]) & {"better", "worse"} != set())
    assert use.startswith("Use ")
    assert limits.startswith("Only mini-cola and mini-rte, ")


def test_the_winners_settings_are_given() -> None:
    study = small(**{"seed": list(range(5)), "allocators": ("uniform", "adalora")})
    results = [
        moved(
            result, (0.8 if result.spec["allocator"]["name"] == "adalora" else 0.5) + Random(result.key).random() / 99
        )
        for result in make(trials(study))
    ]
    best, use, _ = texts(evidence(study, results))
    assert "significantly better" in best
    assert re.match(r"Use adalora. It reaches 0.80\d ± 0.00\d at mean rank 2 \(2,\d+ parameters\) and 0.80", use)
    assert re.search(r" at 4 \(\d,\d{3}\)\. A training takes", use)
    assert "times as long as one of uniform" in use


def test_budgets_with_settings_of_their_own_are_told_with_them() -> None:
    """The learning rate that was best at the larger budget is not said of the smaller one."""
    study = small(allocators=("uniform", "adalora"), **{"training.lr": [1e-3, 2e-3]})
    best = {2.0: 1e-3, 4.0: 2e-3}
    results = []
    for result in make(trials(study)):
        wins = result.spec["training"]["lr"] == best[result.spec["budget"]["mean_rank"]]
        search = dict.fromkeys(result.metrics, 0.9 if wins else 0.1)
        results.append(result.model_copy(update={"points": (result.own.model_copy(update={"search": search}),)}))
    (use,) = (text for text in texts(evidence(study, results)) if text.startswith("Use "))
    assert re.search(r"at mean rank 2 \([\d,]+ parameters, lr 0\.001\) and .+ at 4 \([\d,]+, lr 0\.002\)\.", use)


def test_many_budgets_are_summarised_by_both_ends() -> None:
    study = small(**{"budget.mean_rank": [1.0, 2.0, 3.0, 4.0, 5.0]})
    _, use, _ = texts(evidence(study))
    assert re.fullmatch(r"Use .+ at mean rank 1 \([\d,]+ parameters\) and .+ at 5 \([\d,]+\)\.", use)


def test_tasks_that_cannot_be_averaged_are_named() -> None:
    """A metric without a range has a verdict of its own; a single one needs no name."""
    results = make(trials(grid()))
    lost = [
        result.model_copy(
            update={
                "metrics": ("loss",), "minimised": ("loss",),
                "points": tuple(
                    point.model_copy(update={"search": {"loss": 1.0 - point.search[result.metrics[0]]},
                                             "report": {"validation": {"loss": 1.0 - result.score("report", point)}}})
                    for point in result.points
                ),
            }
        )
        for result in results
    ]  # fmt: skip
    best = [text for text in texts(evidence(grid(), lost)) if "best: " in text]
    assert [text.partition(":")[0] for text in best] == ["mini-cola", "mini-rte"]
    one = small()
    some = [result for result in lost if result.spec["task"]["name"] == "mini-cola"]
    kept = [result for result in some if result.spec["allocator"]["name"] in ("uniform", "random")]
    assert any(text.startswith("Best: ") for text in texts(evidence(one, kept)))


def test_the_interval_over_examples_is_told() -> None:
    """Of seeds and examples where there is a test, of examples alone with one seed; nothing without predictions."""
    labels = np.arange(200) % 2
    for seeds, words in ((4, "Over seeds and examples, the interval of adalora is"), (1, "Over examples alone, the")):
        study = small(**{"task.name": ["mini-rte"], "seed": list(range(seeds)), "allocators": ("uniform", "adalora")})
        results = make(trials(study))
        shares = {r.key: 0.9 if r.spec["allocator"]["name"] == "adalora" else 0.5 for r in results}
        stored = {key: classes(labels, np.random.default_rng(0).random(200) < share) for key, share in shares.items()}
        record = SearchRecord(predictions=stored.get)
        told = texts(Evidence.of(study, results, {}, record))
        assert any(words in text for text in told)
        assert not any(words in text for text in texts(evidence(study, results)))


def test_too_few_seeds_come_first() -> None:
    study = small(seed=[0, 1], **{"budget.mean_rank": [2.0]})
    results = [moved(result, 0.1 + 0.5 * ((index * 7) % 5) / 5) for index, result in enumerate(make(trials(study)))]
    first, *_ = texts(evidence(study, results))
    assert first.startswith("No difference that the metric can show would have been significant with 2 seeds")


def test_one_seed_comes_first() -> None:
    first, best, *_ = texts(evidence(small(seed=[0])))
    assert first.startswith("No difference can be significant with one seed")
    assert "one shared seed allows no test" in best


def test_collapsed_trainings_are_a_warning() -> None:
    study = small(seed=[0, 1, 2])
    first, *others = make(trials(study))
    found = evidence(study, [moved(first, 0.0), *others])
    (warning,) = (text for text in remarks(found) if text.startswith("Collapsed"))
    assert "uniform 1 of 6" in warning
    arms = found.comparison.arms
    assert set(arms["test"]) == {"sign flips"}
    assert set(arms["verdict"]) == {"too few seeds"}


def test_configurations_per_side_are_a_warning() -> None:
    study = small(seed=[0, 1, 2], **{"training.lr": [1e-3, 2e-3]})
    assert any("Configurations per task and budget: uniform 2, random 2" in text for text in remarks(evidence(study)))


@pytest.mark.parametrize("name", ["uniform", "random"])
def test_nothing_to_compare(name: str) -> None:
    assert conclusion(evidence(small(allocators=(name,)))) == ()


def test_an_interval_is_in_the_direction_of_its_metric() -> None:
    """Below uniform by 0.1 at a metric that is better when lower: the interval of the difference is negative too."""
    row = {"low": 0.05, "high": 0.15}
    assert interval(row) == "interval +0.050 to +0.150, "
    assert interval(row, falling=True) == "interval -0.150 to -0.050, "
    assert interval({"low": math.nan, "high": math.nan}) == ""


@pytest.mark.parametrize(("sign", "words"), [(1, "-0.200 to -0.050"), (-1, "+0.050 to +0.200")])
def test_the_interval_over_examples_is_in_the_direction_of_its_metric(sign: int, words: str) -> None:
    """Worse by 0.1: below uniform at an accuracy, above it at a perplexity."""
    row = {"allocator": "adalora", "both_low": -0.2, "both_high": -0.05, "verdict": "not significant"}
    found: Any = SimpleNamespace(points=pd.DataFrame({"sign": [sign, sign]}))
    assert _over_examples(found, row) == f" Over seeds and examples, the interval of adalora is {words}."


def test_equal_scores_are_no_best() -> None:
    """Where no arm has learned anything, all predict alike, and none is the best."""
    study = small()
    results = [moved(result, 0.0) for result in make(trials(study))]
    told = texts(evidence(study, results))
    assert any(text.startswith("No difference: random and uniform have equal scores at every seed.") for text in told)
    assert not any("Best" in text for text in told)
