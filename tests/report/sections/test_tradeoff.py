"""The trade-off curve: lines, clouds, fronts and axes."""

from __future__ import annotations

import math

import pytest
from synthetic_results import ONE_SHOT, blocks, make, one_shot_evidence, result, series, trials

from rankopt.core.pattern import RankPattern
from rankopt.core.result import TrialResult
from rankopt.core.spec import decode
from rankopt.core.study_spec import StudySpec
from rankopt.report.chart import Curves
from rankopt.report.sections.tradeoff import TradeOff


def test_one_seed_has_no_error_bars(study: StudySpec) -> None:
    allocators = [{"name": name} for name in ("uniform", "random")]
    one = StudySpec(name="one", base=study.base, space={"allocator": allocators, "seed": [0]})
    (chart,) = blocks(one, make(trials(one)))["trade-off"].charts
    assert chart.caption.startswith("One seed")
    assert all(math.isnan(error) for line in series(chart, "line") for error in line.error)


def test_many_configurations_are_a_cloud_with_a_front(study: StudySpec) -> None:
    base = study.base | {"allocator": {"name": "uniform"}}
    search = StudySpec(name="search", base=base, space={"training.lr": [1e-4 * k for k in range(1, 13)]})
    found = blocks(search, make(trials(search)))
    (chart,) = found["trade-off"].charts
    (line,), (cloud,), (front,) = (series(chart, mark) for mark in ("line", "cloud", "front"))
    assert (len(line.x), len(cloud.x)) == (1, 11)
    assert line.y[0] in front.y
    assert all("\nlr " in text for text in (*line.hover, *cloud.hover))
    assert found["scores"].tables[0].title.startswith("Pareto front")


def test_a_search_has_no_lines(study: StudySpec) -> None:
    """Its configurations differ in more than their budget, and a single one can be the whole front."""
    base = study.base | {"allocator": {"name": "uniform"}}
    space = {"training.lr": {"float": [1e-4, 1e-2]}, "budget.mean_rank": [1.0, 2.0, 4.0]}
    sampled = StudySpec(name="search", base=base, space=space, search={"name": "random", "trials": 6})
    made = [
        sampled.trial({"training.lr": 1e-3 * (k + 1), "budget.mean_rank": float(rank)})
        for k, rank in enumerate((1, 2, 4, 1, 2, 4))
    ]
    (chart,) = blocks(sampled, make(made))["trade-off"].charts
    (cloud,), (front,) = (series(chart, mark) for mark in ("cloud", "front"))
    assert not series(chart, "line")
    assert len(cloud.x) == 6
    assert set(zip(front.x, front.y, strict=True)) <= set(zip(cloud.x, cloud.y, strict=True))
    assert front.x


def test_further_points_come_from_the_largest_budget(study: StudySpec, results: list[TrialResult]) -> None:
    (chart,) = blocks(study, results)["trade-off"].charts
    dotted = series(chart, "dotted")
    assert {one.label for one in dotted} == {"dylora"}
    assert all(len(one.x) == 3 for one in dotted)  # ranks 1 to 3 below the largest budget, 4


def test_points_of_one_cost_make_no_spike(one_shot: list[TrialResult]) -> None:
    """The dotted line has the best point by search score at every cost."""
    block = TradeOff().block(one_shot_evidence(one_shot))
    assert block is not None
    (line,) = series(block.charts[0], "dotted")
    assert list(line.x) == sorted(set(line.x))
    assert line.y[1] == pytest.approx(ONE_SHOT["evolved 2"] - 0.05)


def test_log_axis_only_where_it_helps(study: StudySpec) -> None:
    for space, log in (([1.0, 2.0], False), ([1.0, 16.0], True), ([0.0, 16.0], False)):
        some = StudySpec(name="s", base=study.base, space={"budget.mean_rank": space})
        (chart,) = blocks(some, make(trials(some)))["trade-off"].charts
        assert [panel.x.log for panel in chart.panels if isinstance(panel, Curves)] == [log]


def without_ranks(study: StudySpec, tuner: str, kept: int) -> list[TrialResult]:
    """Results of a tuner that has no layers, on the first task of a study at every seed."""
    found = []
    for spec in trials(study):
        if spec.task.name == "mini-cola" and spec.method.name == "uniform":
            own = result(spec)
            point = own.own.model_copy(update={"pattern": RankPattern({}), "kept": kept})
            other = decode(type(spec), spec.plain | {"tuner": {"name": tuner}})
            changes = {"key": other.key, "spec": other.plain, "points": (point,), "layers": {}, "ranks": ()}
            found.append(own.model_copy(update=changes))
    return found


def test_methods_without_ranks_are_drawn_at_what_they_store(study: StudySpec, results: list[TrialResult]) -> None:
    """A prompt is a point of its own, full fine-tuning a line across the figure; every section can do without ranks."""
    tuners = study.model_copy(
        update={"space": {**study.space, "tuner": [{"name": n} for n in ("lora", "full", "prompt")]}}
    )
    found = blocks(tuners, [*results, *without_ranks(study, "full", 10**6), *without_ranks(study, "prompt", 640)])
    (chart,) = found["trade-off"].charts
    (prompt,) = [one for one in series(chart, "line") if one.label == "prompt"]
    assert prompt.x == pytest.approx((640,), rel=0.3)
    (full,) = [one for one in series(chart, "front") if one.label == "full fine-tuning"]
    assert full.y[0] == full.y[1]
    assert max(full.x) < 10**6
    averages = next(table.frame for table in found["scores"].tables if table.title == "Means over seeds")
    assert {"full", "prompt", "uniform"} <= set(averages["allocator"])
    assert averages.loc[averages["allocator"] == "full", "mean rank kept"].isna().all()


def test_a_study_without_any_ranks(study: StudySpec) -> None:
    tuners = study.model_copy(update={"base": {**study.base, "tuner": {"name": "full"}}, "space": {"seed": [0, 1, 2]}})
    found = blocks(tuners, without_ranks(study, "full", 10**6))
    assert {"answer", "trade-off", "scores", "cost"} <= set(found)
    assert not {"ranks", "budget"} & set(found)
