"""Heat maps of ranks: means over seeds, layer by module."""

from __future__ import annotations

import math

import pytest
from synthetic_results import blocks, make

from rankopt.core.path import depth_and_module, shortest
from rankopt.core.pattern import RankPattern
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.report.chart import Grid
from rankopt.report.evidence import Evidence
from rankopt.report.sections.ranks import STOPS, ranks_over_time


def test_cells_are_mean_ranks(study: StudySpec, results: list[TrialResult]) -> None:
    evidence = Evidence.of(study, results, {})
    chart = next(chart for chart in blocks(study, results)["ranks"].charts)
    grid = next(panel for panel in chart.panels if isinstance(panel, Grid) and panel.title == "adalora")
    budget = evidence.typical_budget("mini-cola")
    patterns = [evidence.by_key[key].own.pattern for key in evidence.runs("mini-cola", budget, "adalora")["key"]]
    names = [f"encoder.layer.2.{module}" for module in ("attention.self.query", "output.dense")]
    expected = [sum(pattern[name] for pattern in patterns) / len(patterns) for name in names]
    row = grid.values[grid.rows.index("2")]
    assert [row[grid.columns.index(column)] for column in ("query", "output.dense")] == pytest.approx(expected)


def test_a_missing_module_is_an_empty_cell(study: StudySpec) -> None:
    """Depths may have different modules."""
    (result,) = make([study.trial({})])
    names = [name for name in result.layers if name != "encoder.layer.0.output.dense"]
    point = result.own.model_copy(update={"pattern": RankPattern(dict.fromkeys(names, 2))})
    odd = result.model_copy(update={"layers": {n: result.layers[n] for n in names}, "points": (point,), "ranks": ()})
    study = StudySpec(name="one", base=study.base)
    (chart,) = blocks(study, [odd])["ranks"].charts
    (grid,) = chart.panels
    assert isinstance(grid, Grid)
    assert sum(math.isnan(value) for row in grid.values for value in row) == 1


def test_layer_names_of_other_models() -> None:
    assert depth_and_module("transformer.h.11.attn.c_attn") == ("transformer.h.11", "attn.c_attn")
    assert shortest(["encoder.block.0", "decoder.block.0"]) == ["encoder.block.0", "decoder.block.0"]
    assert shortest(["h.0", "h.1"]) == ["0", "1"]


def test_a_figure_per_budget_over_training(study: StudySpec, results: list[TrialResult]) -> None:
    """The last values are the final ranks, earlier ones those of the record; one colour scale per figure."""
    charts = blocks(study, results)["ranks"].charts
    assert [chart.name for chart in charts] == [f"ranks-{number}" for number in (1, 2, 3, 4)]
    assert charts[0].title == "mini-cola at mean rank 2"
    for chart in charts:
        grids = [panel for panel in chart.panels if isinstance(panel, Grid)]
        assert len({grid.top for grid in grids}) == 1
        assert {grid.title for grid in grids if grid.past} == {"adalora"}
        assert (chart.moments[0], chart.moments[-2:]) == ("step 0 of 300", ("step 300 of 300", "after training"))
        assert all(len(grid.past) in (0, len(chart.moments) - 1) for grid in grids)


def test_ranks_at_a_time_are_those_of_the_last_change(study: StudySpec, results: list[TrialResult]) -> None:
    (result, *_) = (one for one in results if one.spec["allocator"]["name"] == "adalora" and one.ranks)
    history = ranks_over_time(result)
    steps = [round(stop * 300 / STOPS) for stop in range(STOPS + 1)]
    for step, ranks in zip(steps, history, strict=False):
        last = [event for event in result.ranks if event.step <= step][-1]
        assert tuple(ranks) == last.ranks
    assert list(history[-1]) == [result.own.pattern[layer] for layer in result.layers]


def test_without_a_record_there_is_no_slider(study: StudySpec) -> None:
    study = StudySpec(name="one", base=study.base)
    (chart,) = blocks(study, [one.model_copy(update={"ranks": ()}) for one in make([study.trial({})])])["ranks"].charts
    assert chart.moments == ()
