"""The tidy table: rows, labels, settings, and damaged results."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from analysis_results import LAYERS, trial

from rankopt.analysis.averages import average
from rankopt.analysis.comparison import compare
from rankopt.analysis.frame import flatten, labels, tidy


def test_one_row_per_point_with_every_metric() -> None:
    frame = tidy([trial(0.6, points=3), trial(0.7, seed=1)])
    assert len(frame) == 4
    assert frame["own"].sum() == 2
    assert list(frame.loc[0, ["setting", "allocator", "budget", "kept", "mean_rank", "score"]]) == [
        "rte", "uniform", 2.0, 60, 3.0, 0.6,
    ]  # fmt: skip
    assert {"search:f1", "validation:f1"} <= set(frame.columns)
    assert frame["configuration"].nunique() == 1


def test_no_results_give_an_empty_frame_with_columns() -> None:
    frame = tidy([])
    assert frame.empty
    assert average(frame).empty
    assert all(table.empty for table in compare(frame, average(frame)))


@pytest.mark.parametrize("budget", [{"mean_rank": 2.0}, {"ranks": 4}])
def test_equal_budgets_in_other_units_are_one_level(budget: dict[str, Any]) -> None:
    assert tidy([trial(0.6, budget=budget)])["budget"].tolist() == [2.0]


def test_no_budget_is_nan() -> None:
    frame = tidy([trial(0.6, budget=None)])
    assert math.isnan(frame["budget"][0])
    assert len(average(frame)) == 1


def test_labels_have_the_options_that_differ() -> None:
    options = [{"beta": 0.1, "final": 1}, {"beta": 0.2, "final": 1}, {"final": 1}]
    assert labels(["a", "a", "a"], options) == ["a (beta=0.1)", "a (beta=0.2)", "a"]
    assert labels(["a"] * 9, [{"beta": k} for k in range(9)]) == [f"a (beta={k})" for k in range(9)]
    assert labels(["a", "b"], [{"beta": 1}, {"beta": 2}]) == ["a", "b"]


def test_settings_separate_what_cannot_be_compared() -> None:
    small, large = ({"name": name} for name in ("mini", "roberta-base"))
    frame = tidy([trial(0.6, model=small), trial(0.7, model=large)])
    assert list(frame["setting"]) == ["rte (model=mini)", "rte (model=roberta-base)"]
    mixed = tidy([trial(0.6), trial(0.7, budget={"mean_rank": 2.0, "unit": "parameters"})])
    assert mixed["setting"].nunique() == 2


def test_a_data_folder_makes_no_setting() -> None:
    frame = tidy([trial(0.6, task={"name": "rte", "data_dir": "a"}), trial(0.7, task={"name": "rte"}, seed=1)])
    assert set(frame["setting"]) == {"rte"}


def test_rows_do_not_depend_on_the_order_of_results() -> None:
    results = [trial(0.6, seed=seed, allocator={"name": name}) for seed in range(3) for name in ("uniform", "random")]
    pd.testing.assert_frame_equal(tidy(results), tidy(results[::-1]))


def test_a_damaged_result_is_left_out() -> None:
    """Whatever is damaged, the others have their rows."""
    good, other = trial(0.6), trial(0.7, seed=1)
    nan = other.own.model_copy(update={"search": {"accuracy": float("nan")}})
    for changes in ({"metrics": ()}, {"spec": {}}, {"points": (nan,)}, {"layers": {"other": LAYERS["0.query"]}}):
        damaged = other.model_copy(update=changes)
        assert list(tidy([damaged, good])["key"]) == [good.key]


def test_flatten() -> None:
    assert flatten({"a": {"b": {"c": 1}}, "d": []}) == {"a.b.c": 1, "d": []}
