"""Runs of several tasks: which scores they are, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest
from curve_data import curve

from rankopt.analysis.aurac import aurac
from rankopt.analysis.curves import Curve
from rankopt.analysis.over_tasks import interquartile_mean, probability_of_improvement
from rankopt.analysis.task_summaries import summarize_tasks

TASKS = ("cola", "mrpc", "rte")


def several(**changes: object) -> list[Curve]:
    """Three tasks and three allocators, two seeds and two budgets each."""
    random = np.random.default_rng(0)
    return [
        curve((level + random.normal(0, 0.01, (2, 2))).tolist(), allocator=name, setting=task, **changes)
        for task in TASKS
        for name, level in (("adalora", 0.8), ("random", 0.5), ("uniform", 0.7))
    ]


def test_a_run_is_the_area_of_a_curve() -> None:
    curves = several()
    found = summarize_tasks(curves)
    assert found is not None
    runs = {
        name: [[aurac([99, 999], row, 99, 999) for row in one.scores] for one in curves if one.allocator == name]
        for name in ("adalora", "random", "uniform")
    }
    rows = found.rows.set_index("allocator")
    for name, one in runs.items():
        assert rows.loc[name, "iqm"] == pytest.approx(float(interquartile_mean(one)))
    assert rows.loc["adalora", "improvement"] == probability_of_improvement(runs["adalora"], runs["uniform"]) == 1
    assert rows["mean_rank"].to_dict() == {"adalora": 1, "random": 3, "uniform": 2}
    assert rows.loc["adalora", "iqm_low"] < rows.loc["adalora", "iqm"] < rows.loc["adalora", "iqm_high"]


def test_one_budget_is_scored_directly() -> None:
    curves = [curve([[0.5], [0.6]], [99], name, task) for task in TASKS for name in ("adalora", "uniform")]
    found = summarize_tasks(curves)
    assert found is not None
    assert found.rows["iqm"].tolist() == pytest.approx([0.55, 0.55])
    assert found.rows["improvement"].tolist()[0] == 0.5
    assert found.ranking is None


def test_metrics_without_a_range_are_ranked_but_not_averaged() -> None:
    found = summarize_tasks(several(metric="perplexity", sign=-1))
    assert found is not None
    assert found.rows["iqm"].isna().all()
    assert not found.profiles
    assert found.ranking is not None
    assert list(found.ranking.ranks) == ["random", "uniform", "adalora"]


def test_allocators_that_lack_a_task_are_left_out() -> None:
    curves = several()[:-2]  # random and uniform have no rte
    assert summarize_tasks(curves[:3]) is None  # one task
    found = summarize_tasks(curves)
    assert found is None  # adalora alone has all tasks
