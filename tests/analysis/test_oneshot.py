"""Points of a super-network and their trainings from scratch."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from scipy import stats

from rankopt.analysis.oneshot import agreement, agreement_interval, oneshot
from rankopt.core.pattern import RankPattern, Shape
from rankopt.core.result import Cost, Point, TrialResult


def point(label: str, ranks: tuple[int, int], score: float) -> Point:
    pattern = RankPattern({"a": ranks[0], "b": ranks[1]})
    return Point(
        label=label,
        pattern=pattern,
        kept=8 * sum(ranks),
        search={"m": score},
        report={"validation": {"m": score - 0.1}},
    )


def result(key: str, allocator: str, *points: Point, seconds: float = 10.0, **spec: Any) -> TrialResult:
    return TrialResult(
        key=key, spec={"task": {"name": "rte"}, "allocator": {"name": allocator}, **spec}, status="complete",
        metrics=("m",), layers={"a": Shape(4, 4), "b": Shape(4, 4)}, points=points,
        cost=Cost(
            train_seconds=seconds, evaluate_seconds=3, steps=1, tokens=1, padded_tokens=1, looks=5, look_seconds=2
        ),
    )  # fmt: skip


SUPER = result(
    "s", "nested", point("budget", (4, 4), 0.9), point("uniform 2", (2, 2), 0.6), point("evolved 2", (3, 1), 0.7)
)


def test_patterns_are_paired_within_task_training_and_seed() -> None:
    """Allocator and budget may differ; a pattern without a training from scratch has NaN scores."""
    scratch = result("u", "uniform", point("budget", (2, 2), 0.65), seconds=8.0, budget={"mean_rank": 2})
    stranger = result("x", "static", point("budget", (3, 1), 0.2), seed=1)
    failed = TrialResult(key="f", spec=stranger.spec, status="failed", reason="?")
    frame = oneshot([failed, stranger, scratch, SUPER])
    assert list(zip(frame["source"], frame["level"], strict=True)) == [("evolved", 2), ("uniform", 2), ("uniform", 4)]
    row = frame.iloc[1]
    assert (row.search, row.score, row.again_search) == (0.6, 0.5, 0.65)
    assert (row.super_seconds, row.again_seconds, row.again_key) == (12.0, 8.0, "u")
    assert math.isnan(frame.iloc[0].again_score)


@pytest.mark.parametrize("epochs", [3.0, 2.0])
def test_trainings_of_other_epochs(epochs: float) -> None:
    """They are paired only if these epochs are asked for; three epochs are the default and may be left out."""
    training: dict[str, Any] = {"lr": 1e-3} | ({"epochs": epochs} if epochs != 3 else {})
    scratch = result("u", "uniform", point("budget", (2, 2), 0.65), training=training)
    longer = SUPER.model_copy(update={"spec": SUPER.spec | {"training": {"lr": 1e-3, "epochs": 4.0}}})
    assert oneshot([scratch, longer])["again_key"].tolist() == ["", "", ""]
    assert oneshot([scratch, longer], epochs)["again_key"].tolist() == ["", "u", ""]


def test_without_super_networks_there_are_no_rows() -> None:
    assert len(oneshot([result("u", "uniform", point("budget", (2, 2), 0.65))])) == 0


def frame_of(groups: dict[tuple[str, float], list[tuple[float, float]]]) -> pd.DataFrame:
    rows = [
        {"key": key, "level": level, "search": x, "again_search": y, "again_key": f"{key}{level}{number}"}
        for (key, level), pairs in groups.items()
        for number, (x, y) in enumerate(pairs)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    "pairs", [[(1, 2), (2, 1), (3, 3), (4, 4)], [(1, 1), (1, 2), (2, 2), (3, 0)], [(1, 3), (2, 2), (3, 1)]]
)
def test_one_group_gives_kendalls_tau_b(pairs: list[tuple[float, float]]) -> None:
    tau, count = agreement(frame_of({("s", 2.0): pairs}))
    assert tau == pytest.approx(stats.kendalltau(*zip(*pairs, strict=True)).statistic)
    assert count == math.comb(len(pairs), 2)


def test_pairs_are_within_groups() -> None:
    """Pairs across levels would nearly always agree, since levels differ more than patterns."""
    tau, count = agreement(frame_of({("s", 1.0): [(0.1, 0.2), (0.2, 0.1)], ("s", 8.0): [(0.8, 0.9), (0.9, 0.8)]}))
    assert (tau, count) == (-1.0, 2)
    assert math.isnan(agreement(frame_of({("s", 1.0): [(0.1, 0.2)], ("t", 1.0): [(0.1, 0.3)]}))[0])


def test_a_shared_training_forms_no_pair() -> None:
    """Two sources may have found the same pattern."""
    frame = frame_of({("s", 1.0): [(0.1, 0.2), (0.1, 0.2)]}).assign(again_key="k")
    assert agreement(frame)[1] == 0


def test_the_interval_of_tau_draws_super_networks() -> None:
    """Two of them with opposite orders: every sample has tau 1, 0 or -1; one alone has no interval."""
    frame = pd.DataFrame(
        {
            "key": ["a"] * 3 + ["b"] * 3, "level": [2.0] * 6, "search": [0.1, 0.2, 0.3] * 2,
            "again_search": [0.1, 0.2, 0.3, 0.3, 0.2, 0.1], "again_key": list("xyzuvw"),
        }
    )  # fmt: skip
    assert agreement_interval(frame) == (-1.0, 1.0)
    assert all(math.isnan(end) for end in agreement_interval(frame[frame["key"] == "a"]))
