"""Curves in numbers: one table for a task, one more over all tasks, and what is left out."""

from __future__ import annotations

from synthetic_results import blocks, grid, make, series, trials

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec


def test_a_row_per_task_and_allocator(study: StudySpec, results: list[TrialResult]) -> None:
    block = blocks(study, results)["curves"]
    table, over = block.tables
    assert len(table.frame) == 10
    assert table.frame["AURAC"].str.contains(" to ").sum() == 9  # of one curve, one seed is left
    assert table.frame["on the front"].str.contains("rank 2: 1.00").any()
    assert list(over.frame["allocator"]) == ["adalora", "dylora", "random", "salora", "uniform"]
    assert "mean rank" not in over.frame  # two tasks
    assert [chart.name for chart in block.charts] == ["profiles"]


def test_one_task_has_one_table_and_no_chart() -> None:
    one = grid(space={"task.name": ["mini-rte"]})
    block = blocks(one, make(trials(one)))["curves"]
    assert len(block.tables) == 1
    assert not block.charts


def test_one_budget_has_no_columns_of_areas() -> None:
    one = grid(space={"task.name": ["mini-rte"], "budget.mean_rank": [2.0]})
    block = blocks(one, make(trials(one)))["curves"]
    (table,) = block.tables
    assert not {"AURAC", "score at equal parameters", "at parameters"} & set(table.frame)
    assert "AURAC" not in block.text[0]
    assert table.frame["hypervolume"].astype(bool).all()


def test_critical_differences_of_three_tasks() -> None:
    three = grid(space={"task.name": ["mini-cola", "mini-rte", "mini-sst2"]})
    block = blocks(three, make(trials(three)))["curves"]
    chart = block.charts[1]
    assert chart.name == "critical-difference"
    drawn = {one.label: one.x[0] for one in series(chart, "line")}
    assert drawn == block.tables[1].frame.set_index("allocator")["mean rank"].to_dict()
    bars = series(chart, "step")
    assert bars
    assert all(one.x[1] >= one.x[0] for one in bars)
