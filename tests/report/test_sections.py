"""Sections on thin and odd evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from json import dumps
from typing import Any

import pytest

from rankopt.analysis.pareto import hypervolume
from rankopt.analysis.search import Proposal, SearchRecord
from rankopt.core.path import depth_and_module, shortest
from rankopt.core.pattern import RankPattern
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.report.base import Block
from rankopt.report.chart import Chart, Curves, Grid
from rankopt.report.evidence import Evidence
from rankopt.report.interactive import figures
from rankopt.report.palette import styles
from rankopt.report.sections import SECTIONS
from rankopt.report.static import draw

Make = Callable[[Iterable[TrialSpec]], list[TrialResult]]


def blocks(study: StudySpec, results: list[TrialResult], **counts: int) -> dict[str, Block]:
    evidence = Evidence.of(study, results, counts)
    found = {name: section.block(evidence) for name, section in SECTIONS.items()}
    return {name: block for name, block in found.items() if block}


def all_trials(study: StudySpec) -> list[TrialSpec]:
    return [study.trial(assignment) for assignment in study.assignments()]


def series(chart: Chart, kind: str) -> list[Any]:
    return [one for panel in chart.panels if isinstance(panel, Curves) for one in panel.series if one.kind == kind]


def test_the_answer_is_computed(study: StudySpec, results: list[TrialResult]) -> None:
    evidence = Evidence.of(study, results, {})
    answer = SECTIONS["answer"].block(evidence)
    assert answer
    assert len(answer.bullets) == 4  # two tasks at two budgets
    scores = evidence.chosen.set_index(["setting", "budget", "allocator"])["score"]
    assert f"uniform {scores['mini-rte', 4.0, 'uniform']:.3f} ±" in answer.bullets[-1]
    assert "at mean rank 4" in answer.bullets[-1]


def test_one_seed_one_budget_one_task(study: StudySpec, make: Make) -> None:
    one = StudySpec(
        name="one",
        base=study.base,
        space={"allocator": [{"name": name} for name in ("uniform", "random")], "seed": [0]},
    )
    found = blocks(one, make(all_trials(one)))
    assert "cannot tell" in found["answer"].bullets[0]
    (chart,) = found["trade-off"].charts
    assert chart.caption.startswith("One seed")
    assert all(math.isnan(error) for line in series(chart, "line") for error in line.error)
    (table,) = found["comparison"].tables
    assert table.frame["95% low"].isna().all()
    for block in found.values():
        for chart in block.charts:
            draw(chart)
            figures(chart)


def test_only_failures(study: StudySpec, results: list[TrialResult]) -> None:
    failed = [result for result in results if result.status == "failed"]
    found = blocks(study, failed)
    assert list(found) == ["answer", "failures", "provenance"]
    assert "No trial is complete" in found["answer"].warnings[0]
    assert list(found["failures"].tables[0].frame["key"]) == [failed[0].key]


def test_trials_without_a_budget(study: StudySpec, make: Make) -> None:
    base = {"task": {"name": "rte"}, "allocator": {"name": "static", "ranks": {"*": 3}}}
    static = StudySpec(name="static", base=base, space={"seed": [0, 1]})
    found = blocks(static, make(all_trials(static)))
    assert "no uniform trial at the same budget" in found["answer"].bullets[0]
    assert found["ranks"].charts
    assert "budget" not in found


def test_a_search_is_a_cloud_with_a_front(study: StudySpec, make: Make) -> None:
    base = study.base | {"allocator": {"name": "uniform"}}
    search = StudySpec(name="search", base=base, space={"training.lr": [1e-4 * k for k in range(1, 13)]})
    found = blocks(search, make(all_trials(search)))
    (chart,) = found["trade-off"].charts
    (line,), (cloud,), (front,) = (series(chart, kind) for kind in ("line", "cloud", "front"))
    assert (len(line.x), len(cloud.x)) == (1, 11)
    assert line.y[0] in front.y
    assert found["scores"].tables[0].title.startswith("Pareto front")


def test_a_sampled_search_joins_no_budgets(study: StudySpec, make: Make) -> None:
    """Its configurations differ in more than their budget, and one alone can be the whole front."""
    base = study.base | {"allocator": {"name": "uniform"}}
    space = {"training.lr": {"float": [1e-4, 1e-2]}, "budget.mean_rank": [1.0, 2.0, 4.0]}
    sampled = StudySpec(name="search", base=base, space=space, search={"name": "random", "trials": 6})
    made = [
        sampled.trial({"training.lr": 1e-3 * (k + 1), "budget.mean_rank": float(rank)})
        for k, rank in enumerate((1, 2, 4, 1, 2, 4))
    ]
    (chart,) = blocks(sampled, make(made))["trade-off"].charts
    (cloud,), (front,) = (series(chart, kind) for kind in ("cloud", "front"))
    assert not series(chart, "line")
    assert len(cloud.x) == 6
    assert set(zip(front.x, front.y, strict=True)) <= set(zip(cloud.x, cloud.y, strict=True))
    assert front.x
    draw(chart)
    figures(chart)


def test_nested_points_come_from_the_largest_budget(study: StudySpec, results: list[TrialResult]) -> None:
    (chart,) = blocks(study, results)["trade-off"].charts
    nested = series(chart, "nested")
    assert {one.label for one in nested} == {"dylora"}
    assert all(len(one.x) == 3 for one in nested)  # ranks 1 to 3 below the largest budget, 4


def test_log_axis_only_where_it_helps(study: StudySpec, make: Make) -> None:
    for space, log in (([1.0, 2.0], False), ([1.0, 16.0], True), ([0.0, 16.0], False)):
        some = StudySpec(name="s", base=study.base, space={"budget.mean_rank": space})
        (chart,) = blocks(some, make(all_trials(some)))["trade-off"].charts
        assert [panel.x.log for panel in chart.panels if isinstance(panel, Curves)] == [log]
        draw(chart)


def test_results_outside_the_plan_are_counted(study: StudySpec, make: Make) -> None:
    stranger = study.trial({"seed": 99})
    text = " ".join(blocks(study, make([*all_trials(study)[:2], stranger]))["failures"].bullets)
    assert "1 result outside the study's plan" in text
    assert "58 of 60 planned trials have no complete result" in text


def test_a_key_counts_once(study: StudySpec, results: list[TrialResult], make: Make) -> None:
    complete = next(result for result in results if result.status == "complete")
    failed = complete.model_copy(update={"status": "failed", "points": (), "reason": "killed"})
    for order in ([failed, complete, complete], [complete, failed]):
        assert Evidence.of(study, order, {}).results == (complete,)


def test_paper_protocol_is_printed(study: StudySpec, make: Make) -> None:
    paper = StudySpec(name="paper", base=study.base | {"task": {"name": "rte", "protocol": "paper"}})
    found = blocks(paper, make(all_trials(paper)))
    assert "optimistic" in found["answer"].warnings[0]
    assert "paper" in found["provenance"].warnings[0]


def test_mixed_revisions_are_a_warning(study: StudySpec, results: list[TrialResult]) -> None:
    other = [r.model_copy(update={"environment": r.environment | {"revision": r.key[:1]}}) for r in results]
    assert "more than one revision" in blocks(study, other)["provenance"].warnings[0]


def test_heat_maps_hold_the_mean_ranks(study: StudySpec, results: list[TrialResult]) -> None:
    evidence = Evidence.of(study, results, {})
    chart = next(chart for chart in blocks(study, results)["ranks"].charts)
    grid = next(panel for panel in chart.panels if isinstance(panel, Grid) and panel.title == "adalora")
    budget = evidence.typical_budget("mini-cola")
    patterns = [evidence.by_key[key].own.pattern for key in evidence.runs("mini-cola", budget, "adalora")["key"]]
    names = [f"encoder.layer.2.{module}" for module in ("attention.self.query", "output.dense")]
    expected = [sum(pattern[name] for pattern in patterns) / len(patterns) for name in names]
    row = grid.values[grid.rows.index("2")]
    assert [row[grid.columns.index(column)] for column in ("query", "output.dense")] == pytest.approx(expected)


def test_layers_that_differ_between_depths_leave_empty_cells(study: StudySpec, make: Make) -> None:
    (result,) = make([study.trial({})])
    names = [name for name in result.layers if name != "encoder.layer.0.output.dense"]
    point = result.own.model_copy(update={"pattern": RankPattern(dict.fromkeys(names, 2))})
    odd = result.model_copy(update={"layers": {n: result.layers[n] for n in names}, "points": (point,), "ranks": ()})
    (chart,) = blocks(study, [odd])["ranks"].charts
    (grid,) = chart.panels
    assert isinstance(grid, Grid)
    assert sum(math.isnan(value) for row in grid.values for value in row) == 1
    draw(chart)
    figures(chart)


def test_layer_names_of_other_models() -> None:
    assert depth_and_module("transformer.h.11.attn.c_attn") == ("transformer.h.11", "attn.c_attn")
    assert shortest(["encoder.block.0", "decoder.block.0"]) == ["encoder.block.0", "decoder.block.0"]
    assert shortest(["h.0", "h.1"]) == ["0", "1"]


def test_styles_are_distinct_and_depend_on_the_set_only() -> None:
    names = [f"method{k}" for k in range(56)]
    assert len(set(styles(names).values())) == 58
    assert styles(names) == styles(names[::-1])


def searched(study: StudySpec, make: Make, **more: Any) -> tuple[StudySpec, list[TrialResult]]:
    """A search over budgets and learning rates, and its results."""
    space: dict[str, Any] = {"budget.mean_rank": [1.0, 2.0, 4.0], "training.lr": [1e-3, 2e-3, 4e-3, 8e-3]}
    search = {"name": "tpe", "trials": 12}
    spec = StudySpec.model_validate({"name": "search", "base": study.base, "space": space, "search": search} | more)
    return spec, make(all_trials(spec))


def test_a_search_shows_its_progress(study: StudySpec, make: Make) -> None:
    """The hypervolume never falls, ends at that of all trials, as a share of full rank at score 1; proposals that
    failed, were stopped or repeated another are counted and win nothing."""
    spec, results = searched(study, make)
    fates = [Proposal([result.key], "complete") for result in results]
    fates[3:3] = [Proposal(["x"], "failed"), Proposal(["y"], "pruned"), fates[0]]
    evidence = Evidence.of(spec, results, {}, SearchRecord(fates))
    block = SECTIONS["search"].block(evidence)
    assert block
    assert block.bullets[0] == "15 proposals: 13 complete, 1 failed, 1 pruned."
    assert block.bullets[1].startswith("1 of them repeated")
    (line,) = series(block.charts[0], "step")
    assert list(line.y) == sorted(line.y)
    assert len(line.x) == 15
    assert line.y[3] == line.y[4] == line.y[2]
    kept, scores = [r.own.kept for r in results], [r.score("search") for r in results]
    full = spec.trial({"budget.mean_rank": 1.0, "training.lr": 1e-3}).model.max_rank
    most = full * sum(shape.cost for shape in results[0].layers.values())
    assert line.y[-1] == pytest.approx(hypervolume(kept, scores, (most, 0.0)) / most)
    draw(block.charts[0])
    figures(block.charts[0])


def test_a_search_for_one_score_shows_the_best_so_far(study: StudySpec, make: Make) -> None:
    """Among those that keep the constraint only: the others, of which the first trial is one, are crosses, and neither
    the answer nor a front names them."""
    objective: dict[str, Any] = {"objectives": {"score": "maximize"}}
    spec, results = searched(study, make, **objective)
    results = sorted(results, key=lambda result: -result.own.kept)
    most = results[6].own.kept
    assert results[0].own.kept > most
    spec = spec.model_copy(update={"constraints": {"parameters": most}})
    evidence = Evidence.of(spec, results, {}, SearchRecord([Proposal([r.key], "complete") for r in results]))
    block = SECTIONS["search"].block(evidence)
    assert block
    assert f"at most {most:,} parameters kept" in block.text[0]
    (line,) = series(block.charts[0], "step")
    assert line.y[-1] == max(r.score("search") for r in results if r.own.kept <= most)
    assert line.x[0] == 1 + sum(r.own.kept > most for r in results)
    clouds = {one.label: len(one.x) for one in series(block.charts[0], "cloud")}
    assert clouds == {"trials": 12 - (line.x[0] - 1), "trials beyond the constraint": line.x[0] - 1}
    dumps(figures(block.charts[0]), allow_nan=False)
    draw(block.charts[0])
    found = {name: section.block(evidence) for name, section in SECTIONS.items()}
    assert f"within {most:,} parameters on the search split is" in found["answer"].bullets[0]
    assert max(found["scores"].tables[0].frame["parameters kept"]) <= most
    (ringed,) = series(found["trade-off"].charts[0], "front")
    assert max(ringed.x) <= most
    none = Evidence.of(spec.model_copy(update={"constraints": {"parameters": 1}}), results, {}, evidence.search)
    assert "none of 12 configurations keeps the constraint" in SECTIONS["answer"].block(none).bullets[0]
    for section in SECTIONS.values():
        for chart in block.charts if (block := section.block(none)) else ():
            draw(chart)
            dumps(figures(chart), allow_nan=False)


def test_a_search_says_what_it_found(study: StudySpec, make: Make) -> None:
    """The best and the cheap end of the front with what they are, and the front's patterns; however many budgets."""
    space = {"budget.mean_rank": {"float": [1.0, 8.0]}, "training.lr": {"float": [1e-3, 1e-2]}}
    search = {"name": "random", "trials": 14}
    spec = StudySpec.model_validate({"name": "search", "base": study.base, "space": space, "search": search})
    made = [spec.trial({"budget.mean_rank": 1 + k / 2, "training.lr": 1e-3 * (1 + k % 5)}) for k in range(14)]
    evidence = Evidence.of(spec, make(made), {}, SearchRecord([Proposal([trial.key], "complete") for trial in made]))
    found = {name: section.block(evidence) for name, section in SECTIONS.items()}
    front = evidence.front("mini-cola")
    assert len(front) > 1
    (told,) = found["answer"].bullets
    assert "the best of 14 configurations on the search split is uniform" in told
    assert f"{front.iloc[-1]['kept']:,.0f} parameters" in told
    assert f"the Pareto front has {len(front)}, the cheapest of which is uniform" in told
    rates = {f"lr {trial.training.lr:.3g}" for trial in made if trial.key in set(front["key"])}
    assert set(found["scores"].tables[0].frame["configuration"]) == rates
    (chart,) = found["ranks"].charts
    assert len(chart.panels) == min(6, len(front))
    assert chart.panels[0].title.startswith("uniform, ")
    assert SECTIONS["importance"].block(evidence).text[0].startswith("Not told")


def test_importances_are_drawn(study: StudySpec, make: Make) -> None:
    """One row and one marker per dimension and question, the most important on top; nothing for a grid."""
    spec, results = searched(study, make)
    shares = {"front": {"training.lr": 0.7, "budget.mean_rank": 0.3}, "score": {"training.lr": 1.0}}
    block = SECTIONS["importance"].block(Evidence.of(spec, results, {}, SearchRecord((), shares)))
    assert block
    assert list(block.tables[0].frame["dimension"]) == ["training.lr", "budget.mean_rank"]
    front, score = series(block.charts[0], "interval")
    assert (front.x, score.x) == ((0.3, 0.7), (0.0, 1.0))
    draw(block.charts[0])
    figures(block.charts[0])
    assert not {"search", "importance"} & set(blocks(study, make(all_trials(study)[:4])))


def test_a_proposal_that_is_no_trial_is_a_failure_in_the_report(study: StudySpec, make: Make) -> None:
    """Its reason is shown though its spec does not decode."""
    spec, results = searched(study, make)
    broken = {**results[0].spec, "budget": {"mean_rank": 400.0}}
    failed = TrialResult(key="0" * 12, spec=broken, status="failed", reason="budget.mean_rank must be at most 16")
    found = blocks(spec, [*results, failed])
    assert list(found["failures"].tables[0].frame["reason"]) == ["budget.mean_rank must be at most 16"]
    assert found["provenance"]
