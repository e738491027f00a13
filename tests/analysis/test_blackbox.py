"""Tables of trained configurations, and how they answer proposals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from analysis_results import trial

from rankopt.analysis.blackbox import BlackBox, Row, rows_of
from rankopt.core.pattern import RankPattern, Shape
from rankopt.core.result import Point, TrialResult
from rankopt.study.results_file import read_results, results_text
from rankopt.study.results_merge import merge


def table() -> list[Row]:
    """A grid of two allocators and three ranks at two seeds; "spectral" has no rank 8."""
    return [
        Row(
            task="cola",
            configuration={"allocator.name": name, "budget.mean_rank": rank},
            pattern={"q": rank, "v": rank + (name == "spectral")},
            seed=seed,
            score=0.1 * index + 0.02 * seed + 0.05 * (name == "spectral"),
            parameters=100 * rank,
        )
        for name in ("uniform", "spectral")
        for index, rank in enumerate((2, 4, 8))
        for seed in (0, 1)
        if (name, rank) != ("spectral", 8)
    ]


def test_dimensions_and_means() -> None:
    """Numbers are ordered, other values are categories; a configuration's seeds are averaged."""
    box = BlackBox(table())
    assert box.dimensions == {"allocator.name": ["uniform", "spectral"], "budget.mean_rank": [2, 4, 8]}
    assert box.configurations[0] == {"allocator.name": "uniform", "budget.mean_rank": 2}
    assert box.scores == pytest.approx([0.01, 0.11, 0.21, 0.06, 0.16])
    assert box.parameters == [200, 400, 800, 200, 400]
    assert box.regret(4) == pytest.approx(0.05)


def test_a_combination_that_is_missing_is_answered_by_the_nearest() -> None:
    """Rank 8 of spectral: its rank 4 is half the range away, uniform a whole category."""
    box = BlackBox(table())
    assert box.nearest({"allocator.name": 1, "budget.mean_rank": 1}) == (4, 0.0)
    assert box.nearest({"allocator.name": 1, "budget.mean_rank": 2}) == (4, pytest.approx(0.25))


def test_fields_that_vary_together_are_one_dimension() -> None:
    """Fields of a study that are listed together must not double the space, or proposals miss the table."""
    together = [
        row.model_copy(
            update={"configuration": {**row.configuration, "steps": str(row.configuration["budget.mean_rank"])}}
        )
        for row in table()
    ]
    assert BlackBox(together).dimensions == BlackBox(table()).dimensions


def test_patterns_as_dimensions() -> None:
    box = BlackBox(table(), "pattern")
    assert box.dimensions == {"rank[q]": [2, 4, 8], "rank[v]": [2, 3, 4, 5, 8]}
    assert len(box.configurations) == 5


def test_front_share() -> None:
    """The share of the whole table's hypervolume: nothing for the worst, all for everything, never falling."""
    box = BlackBox(table())
    shares = [box.front_share(range(count)) for count in range(6)]
    assert shares[0] == shares[1] == 0.0  # no configuration, and the one with the lowest score
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_table_that_is_no_black_box() -> None:
    with pytest.raises(ValueError, match="rows of one task, got no complete trial"):
        BlackBox([])
    with pytest.raises(ValueError, match="rows of one task, got cola, rte"):
        BlackBox([*table(), Row(task="rte", score=0.5, parameters=1)])
    with pytest.raises(ValueError, match="at least two configurations, got one"):
        BlackBox(table()[:2])


def test_the_ranks_of_a_found_pattern_are_no_dimension() -> None:
    """They stand in `pattern`; what the fields of a trial lack is not written."""
    found = {"name": "static", "found": "adalora", "ranks": {"0.query": 1, "0.value": 3}}
    rows = rows_of([trial(0.7), trial(0.8, allocator=found), trial(0.6, allocator={"name": "adalora", "beta1": 0.9})])
    fields = sorted(json.dumps(row.configuration) for row in rows)
    assert fields == [
        '{"allocator.beta1": 0.9, "allocator.name": "adalora"}',
        '{"allocator.found": "adalora", "allocator.name": "static"}',
        '{"allocator.name": "uniform"}',
    ]


def test_rows_of_results() -> None:
    """The fields in which trials differ, without seed and folders; every point of a complete trial has a row."""

    def result(key: str, lr: float, seed: int, **more: object) -> TrialResult:
        points = [
            Point(
                label=label,
                pattern=RankPattern({"q": rank}),
                kept=8 * rank,
                search={"f1": 0.5},
                report={"v": {"f1": 0.4}},
            )
            for label, rank in (("budget", 2), ("rank 1", 1))
        ]
        spec = {"task": {"name": "rte", "data_dir": key}, "training": {"lr": lr}, "seed": seed, "model": {"name": "m"}}
        data = {"key": key, "spec": spec, "status": "complete", "metrics": ("f1",), "points": points}
        return TrialResult.model_validate(data | {"layers": {"q": Shape(4, 4)}} | more)

    failed = TrialResult(key="c", spec={"task": {"name": "rte"}, "training": {"lr": 9.0}}, status="failed")
    rows = rows_of([result("b", 1e-3, 1), failed, result("a", 1e-4, 0)])
    assert [row.configuration for row in rows] == [
        {"training.lr": 1e-4, "point": "budget"}, {"training.lr": 1e-4, "point": "rank 1"},
        {"training.lr": 1e-3, "point": "budget"}, {"training.lr": 1e-3, "point": "rank 1"},
    ]  # fmt: skip
    assert [(row.seed, row.parameters, row.score, row.report) for row in rows[:2]] == [
        (0, 16, 0.5, 0.4),
        (0, 8, 0.5, 0.4),
    ]


def test_the_committed_black_box() -> None:
    """It holds what the committed results hold, and nothing of a data set."""
    reports = Path(__file__).parents[2] / "reports"
    entries = read_results(sorted(reports.glob("*/results.jsonl"))).entries
    box = read_results([reports / "blackbox" / "rank_blackbox.jsonl.gz"])
    assert box.problems == []
    rows = rows_of(merge(entries).results())
    assert results_text(entry.record for entry in box.entries) == results_text(rows)
    assert (reports / "blackbox" / "rank_blackbox.jsonl.gz").stat().st_size < 20_000_000
