"""The one-shot section: what one training said beside what training from scratch said, as numbers."""

from __future__ import annotations

from typing import Any

import pytest

from rankopt.analysis.oneshot import agreement, oneshot
from rankopt.analysis.pareto import hypervolume
from rankopt.core.pattern import RankPattern, Shape
from rankopt.core.result import Cost, Point, TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec, decode
from rankopt.report.evidence import Evidence
from rankopt.report.interactive import figures
from rankopt.report.sections import SECTIONS
from rankopt.report.sections.oneshot import OneShot
from rankopt.report.static import draw

SHAPES = {"a": Shape(4, 4), "b": Shape(4, 4)}
PATTERNS = {"budget": (4, 4), "uniform 2": (2, 2), "energy 2": (3, 1), "evolved 2": (4, 0), "uniform 1": (1, 1)}
ONCE = {"budget": 0.60, "uniform 2": 0.50, "energy 2": 0.52, "evolved 2": 0.56, "uniform 1": 0.30}
AGAIN = {"budget": 0.58, "uniform 2": 0.53, "energy 2": 0.51, "evolved 2": 0.57}


def trial(allocator: dict[str, Any], points: list[Point], seed: int, seconds: float) -> TrialResult:
    data = {"task": {"name": "mini-cola"}, "allocator": allocator, "budget": {"mean_rank": 4.0}, "seed": seed}
    spec = decode(TrialSpec, data)
    return TrialResult(
        key=spec.key, spec=spec.model_dump(mode="json"), status="complete", metrics=("matthews",), layers=SHAPES,
        points=tuple(points),
        cost=Cost(
            train_seconds=seconds, evaluate_seconds=4.0, steps=10, tokens=10, padded_tokens=10, looks=20,
            look_seconds=4.0,
        ),
    )  # fmt: skip


def point(label: str, score: float) -> Point:
    a, b = PATTERNS[label]
    report = {"validation": {"matthews": score - 0.05}}
    return Point(
        label=label, pattern=RankPattern({"a": a, "b": b}), kept=8 * (a + b), search={"matthews": score}, report=report
    )


def again(label: str, seed: int) -> TrialResult:
    allocator = {"name": "static", "ranks": dict(zip("ab", PATTERNS[label], strict=True)), "found": label.split()[0]}
    own = point(label, AGAIN[label] + 0.02 * seed).model_copy(update={"label": "budget", "source": "", "level": None})
    return trial(allocator, [own], seed, seconds=8.0)


@pytest.fixture
def results() -> list[TrialResult]:
    supers = [trial({"name": "nested"}, [point(k, s) for k, s in ONCE.items()], seed, 10.0) for seed in (0, 1)]
    return supers + [again(label, seed) for label in AGAIN for seed in (0, 1)]


def evidence(results: list[TrialResult]) -> Evidence:
    study = StudySpec.model_validate({"name": "s", "base": {}, "search": {"name": "oneshot"}})
    return Evidence.of(study, results, {})


def test_numbers(results: list[TrialResult]) -> None:
    """Cost, tau and differences as computed by hand; means and errors over seeds; twice the cost beside a pattern."""
    block = OneShot().block(evidence(results))
    assert block is not None
    text = " ".join(block.bullets)
    assert "2 super-networks; 40 patterns looked at, 0.2 s each." in text
    # 10 steps of 10 s and looks of 4 s, beside 10 steps of 8 s
    assert "cost 1.40 trainings from scratch by steps, all looks counted at their share" in text
    assert "(1.75 by the clock); training each of the 20 patterns" in text
    assert "One look cost 1/40 of a training." in text
    tau, pairs = agreement(oneshot(results))
    assert (round(tau, 3), pairs) == (0.333, 6)  # of the three patterns of rank 2, two pairs agree and one does not
    assert (
        f"over 6 pairs of patterns of one super-network and equal cost: {tau:.2f}, give or take 0.34." in text
    )  # a coin that fell (4 + 1) of (6 + 2) times: 2 sqrt(5/8 3/8 / 8)
    # the curve is the evolved pattern at rank 2; reported scores are 0.05 lower; seed 1 has 0.02 more from scratch
    assert "of the same cost, trained from scratch: +0.020 ± 0.010 at rank 2, +0.010 ± 0.010 at rank 4 (mean" in text
    assert "all uniform patterns left out, trained from scratch: -0.030 ± 0.010 at rank 2 (mean" in text
    rows = block.tables[0].frame.set_index(["rank", "pattern"])
    assert rows.loc[(2, "evolved"), "one-shot"] == "0.510 ± 0.000"
    assert rows.loc[(2, "evolved"), "from scratch"] == "0.530 ± 0.010"
    assert rows.loc[(2, "evolved"), "uniform of twice the cost, from scratch"] == "0.540 ± 0.010"
    assert rows.loc[(1, "uniform"), "from scratch"] == ""
    assert {series.label for series in block.charts[0].panels[0].series} == {
        *(f"{kind}, {how}" for kind in ("uniform", "evolved") for how in ("one-shot", "from scratch")),
        "Pareto front, one-shot",
    }


def test_seeds_of_one_way_to_find_patterns_are_repetitions(results: list[TrialResult]) -> None:
    averages = evidence(results).averages
    evolved = averages[averages["allocator"].str.contains("found=evolved")]
    assert evolved["n"].tolist() == [2]


def test_without_a_check_it_says_so(results: list[TrialResult]) -> None:
    block = OneShot().block(evidence(results[:2]))
    assert block is not None
    assert "nothing says how far the curve can be believed" in " ".join(block.bullets)
    assert OneShot().block(evidence(results[2:])) is None


def test_the_whole_from_before_the_recovery(results: list[TrialResult]) -> None:
    """Where smaller patterns are cut from another adapter than the whole, the report says so."""
    recovered = [
        one.model_copy(update={"adapter": "recovered"} if place else {}) for place, one in enumerate(results[0].points)
    ]
    kept = results[0].model_copy(update={"points": tuple(recovered)})
    texts = [OneShot().block(evidence([first, *results[1:]])) for first in (results[0], kept)]
    assert ["before the recovery" in block.text[0] for block in texts if block] == [False, True]


def test_long_labels_fit_the_figure(results: list[TrialResult]) -> None:
    """The legend has as many columns as its longest label leaves room for."""
    block = OneShot().block(evidence(results))
    assert block is not None
    figure = draw(block.charts[0])
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert figure.bbox.x0 <= legend.x0 < legend.x1 <= figure.bbox.x1


def test_front_history_and_importances(results: list[TrialResult]) -> None:
    """What the super-networks looked at and measured is drawn as for any search."""
    looks = tuple((8 * (a + b), ONCE[label]) for label, (a, b) in PATTERNS.items() if label != "budget")
    layers = {"encoder.0.query": 3.0, "encoder.1.query": 1.0, "encoder.1.value": 4.0}
    more = {"looks": looks, "measured": {"energy": layers, "sensitivity": dict.fromkeys(layers, 1.0)}}
    found = evidence([result.model_copy(update=more) for result in results[:2]] + results[2:])
    search, importance, curve = (SECTIONS[name].block(found) for name in ("search", "importance", "one-shot"))
    assert search and importance and curve  # noqa: PT018
    lines = search.charts[0].panels[0].series
    assert [line.label for line in lines] == ["super-network, seed 0", "super-network, seed 1"]
    most = 16 * 16  # rank 16 of two layers of cost 8
    kept, scores = zip(*looks, strict=True)
    assert lines[0].y[-1] == pytest.approx(hypervolume(kept, scores, (most, 0.0)) / most)
    assert list(lines[0].y) == sorted(lines[0].y)
    shares = importance.tables[0].frame.set_index("dimension")
    assert shares.loc["query", "energy"] == shares.loc["value", "energy"] == 0.5
    assert shares.loc["encoder.1", "sensitivity"] == pytest.approx(2 / 3)
    front = curve.tables[0].frame
    front = front[front["on the front"] == "yes"]
    assert set(zip(front["rank"], front["pattern"], strict=True)) == {(1, "uniform"), (2, "evolved"), (4, "uniform")}
    for block in (search, importance, curve):
        for chart in block.charts:
            draw(chart)
            figures(chart)


def test_points_of_one_cost_make_no_spike(results: list[TrialResult]) -> None:
    """The trade-off's thin line takes the best on the search split at every cost."""
    block = SECTIONS["trade-off"].block(evidence(results))
    assert block is not None
    (line,) = (one for panel in block.charts[0].panels for one in panel.series if one.kind == "nested")
    assert list(line.x) == sorted(set(line.x))
    assert line.y[1] == pytest.approx(ONCE["evolved 2"] - 0.05)
