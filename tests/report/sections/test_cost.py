"""The cost table: means per trial, and the total."""

from __future__ import annotations

import pytest
from synthetic_results import blocks, make, searched, trials

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec


def test_speed_and_memory_where_results_have_them(study: StudySpec, results: list[TrialResult]) -> None:
    assert len(blocks(study, results)["cost"].tables) == 1
    measured = {"host_memory": 5 * 10**8, "adapter_bytes": 2000, "latency_seconds": 0.004, "example_seconds": 0.001}
    costs = [result.cost.model_copy(update=measured) if result.cost else None for result in results]
    changed = [r.model_copy(update={"cost": cost}) for r, cost in zip(results, costs, strict=True)]
    frame = blocks(study, changed)["cost"].tables[1].frame
    assert set(frame["host MB"]) == {500.0}
    assert set(frame["adapter kB"]) == {2.0}
    assert set(frame["latency ms"]) == {4.0}
    assert set(frame["examples/s"]) == {1000.0}
    assert "device MB" not in frame
    assert (frame["training tokens/s"] > 0).all()


def test_means_and_total(study: StudySpec, results: list[TrialResult]) -> None:
    block = blocks(study, results)["cost"]
    costs = [result.cost for result in results if result.cost]
    total = sum(cost.train_seconds + cost.evaluate_seconds for cost in costs) / 60
    assert f"{total:,.1f} minutes" in block.text[0]
    frame = block.tables[0].frame
    assert frame["trials"].sum() == len(costs)
    assert frame["padding"].tolist() == [pytest.approx(0.1)] * len(frame)


def test_a_further_dimension_has_a_column(study: StudySpec) -> None:
    """Rows of a grid say which trials they are means of; those of a search are means over all of an allocator."""
    grid = StudySpec(name="steps", base=study.base, space={"training.steps": [100, 200], "seed": [0, 1]})
    frame = blocks(grid, make(trials(grid)))["cost"].tables[0].frame
    assert frame["configuration"].tolist() == ["steps 100", "steps 200"]
    assert frame["trials"].tolist() == [2, 2]
    assert "configuration" not in blocks(*searched(study))["cost"].tables[0].frame
    assert "configuration" not in blocks(study, make(trials(study)))["cost"].tables[0].frame


def test_score_against_cost(study: StudySpec, results: list[TrialResult]) -> None:
    """A panel per task and measured cost; positions are the means of the tables."""
    measured = {"host_memory": 5 * 10**8, "latency_seconds": 0.004}
    changed = [r.model_copy(update={"cost": r.cost.model_copy(update=measured)}) if r.cost else r for r in results]
    block = blocks(study, changed)["cost"]
    (chart,) = block.charts
    assert [panel.title for panel in chart.panels] == [
        f"{task}: {cost}"
        for task in ("mini-cola", "mini-rte")
        for cost in ("training time", "peak memory of the process", "latency of one example")
    ]
    seconds = block.tables[0].frame.set_index(["task", "allocator", "mean rank"])["train s"]
    adalora = next(one for one in chart.panels[0].series if one.label == "adalora")  # type: ignore[union-attr]
    assert adalora.x == pytest.approx((seconds["mini-cola", "adalora", 2.0], seconds["mini-cola", "adalora", 4.0]))
