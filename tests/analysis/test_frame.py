"""The tidy table: labels, settings, repetitions, and the choice that never looks at a reported score."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest

from rankopt.analysis.comparison import average, compare
from rankopt.analysis.frame import labels, tidy
from rankopt.core.pattern import RankPattern, Shape
from rankopt.core.result import Point, TrialResult
from rankopt.core.trial_spec import TrialSpec, decode

LAYERS = {"0.query": Shape(4, 4), "0.value": Shape(4, 8)}


def trial(score: float, search: float = 0.5, *, points: int = 1, **fields: Any) -> TrialResult:
    data: dict[str, Any] = {"task": {"name": "rte"}, "allocator": {"name": "uniform"}, "budget": {"mean_rank": 2.0}}
    spec = decode(TrialSpec, data | fields)
    return TrialResult(
        key=spec.key,
        spec=spec.model_dump(mode="json"),
        status="complete",
        metrics=("accuracy", "f1"),
        layers=LAYERS,
        points=tuple(
            Point(
                label=f"p{rank}",
                pattern=RankPattern(dict.fromkeys(LAYERS, rank)),
                kept=20 * rank,
                search={"accuracy": search, "f1": 0.1},
                report={"validation": {"accuracy": score, "f1": 0.2}},
            )
            for rank in range(points, 0, -1)
        ),
    )


def test_one_row_per_point_with_every_metric() -> None:
    frame = tidy([trial(0.6, points=3), trial(0.7, seed=1)])
    assert len(frame) == 4
    assert frame["own"].sum() == 2
    assert list(frame.loc[0, ["setting", "allocator", "budget", "kept", "mean_rank", "score"]]) == [
        "rte", "uniform", 2.0, 60, 3.0, 0.6,
    ]  # fmt: skip
    assert {"search:f1", "validation:f1"} <= set(frame.columns)
    assert frame["configuration"].nunique() == 1


def test_nothing_complete_is_an_empty_frame_with_columns() -> None:
    frame = tidy([])
    assert frame.empty
    assert average(frame).empty
    assert compare(frame, average(frame)).empty


@pytest.mark.parametrize("budget", [{"mean_rank": 2.0}, {"ranks": 4}])
def test_budgets_of_one_amount_are_one_level(budget: dict[str, Any]) -> None:
    assert tidy([trial(0.6, budget=budget)])["budget"].tolist() == [2.0]


def test_no_budget_is_nan() -> None:
    frame = tidy([trial(0.6, budget=None)])
    assert math.isnan(frame["budget"][0])
    assert len(average(frame)) == 1


def test_variants_are_told_apart_by_what_differs() -> None:
    options = [{"beta": 0.1, "final": 1}, {"beta": 0.2, "final": 1}, {"final": 1}]
    assert labels(["a", "a", "a"], options) == ["a (beta=0.1)", "a (beta=0.2)", "a"]
    assert labels(["a"] * 9, [{"beta": k} for k in range(9)]) == ["a"] * 9
    assert labels(["a", "b"], [{"beta": 1}, {"beta": 2}]) == ["a", "b"]


def test_settings_split_what_must_not_be_compared() -> None:
    small, large = ({"name": name} for name in ("mini", "roberta-base"))
    frame = tidy([trial(0.6, model=small), trial(0.7, model=large)])
    assert list(frame["setting"]) == ["rte (model=mini)", "rte (model=roberta-base)"]
    mixed = tidy([trial(0.6), trial(0.7, budget={"mean_rank": 2.0, "unit": "parameters"})])
    assert mixed["setting"].nunique() == 2


def test_a_folder_is_no_setting() -> None:
    frame = tidy([trial(0.6, task={"name": "rte", "data_dir": "a"}), trial(0.7, task={"name": "rte"}, seed=1)])
    assert set(frame["setting"]) == {"rte"}


def test_the_choice_looks_at_the_search_split_only() -> None:
    results = [
        trial(0.9, search=0.5, training={"lr": 1e-3}),
        trial(0.6, search=0.7, training={"lr": 1e-4}),
    ]
    averages = average(tidy(results))
    assert averages.loc[averages["chosen"].astype(bool), "score"].tolist() == [0.6]


def test_the_choice_prefers_configurations_with_all_their_seeds() -> None:
    lucky = [trial(0.9, search=0.9, training={"lr": 1e-3})]
    steady = [trial(0.6, search=0.7, training={"lr": 1e-4}, seed=seed) for seed in (0, 1)]
    averages = average(tidy(lucky + steady))
    assert averages.loc[averages["chosen"].astype(bool), "n"].tolist() == [2]


def test_comparisons_pair_by_task_budget_and_seed() -> None:
    other = {"name": "adalora"}
    results = [
        *(trial(0.60 + 0.01 * seed, seed=seed) for seed in (0, 1, 2)),
        *(trial(0.63 + 0.02 * seed, seed=seed, allocator=other) for seed in (1, 2, 3)),
        trial(0.9, allocator=other, budget={"mean_rank": 4.0}),
        trial(0.9, allocator=other, task={"name": "cola"}),
    ]
    points = tidy(results)
    found = compare(points, average(points))
    assert len(found) == 1
    row = found.iloc[0]
    assert (row["setting"], row["allocator"], row["n"]) == ("rte", "adalora", 2)
    assert row["difference"] == pytest.approx(((0.65 - 0.61) + (0.67 - 0.62)) / 2)
    assert row["p"] == row["p_holm"]


def test_rows_do_not_depend_on_the_order_of_results() -> None:
    results = [trial(0.6, seed=seed, allocator={"name": name}) for seed in range(3) for name in ("uniform", "random")]
    pd.testing.assert_frame_equal(tidy(results), tidy(results[::-1]))
