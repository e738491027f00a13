"""Static: the ranks that were asked for, or a line that says why not."""

from __future__ import annotations

from typing import Any

import pytest

from rankopt.allocators.static import Static
from rankopt.core.budget import Budget

FULL = Budget(mean_rank=4)


def test_the_ranks_asked_for(lab: Any) -> None:
    training = lab.Training(Static(ranks={"*": 1, "*.query": 3, "*layer.1.*query": 0}), FULL).advance()
    final = training.finish()
    assert len(final) == 1
    assert [rank for name, rank in final[0].items() if name.endswith("query")] == [3, 0]
    assert {rank for name, rank in final[0].items() if not name.endswith("query")} == {1}
    assert set(training.trace) == {final[0]}
    for name, layer in training.layers.items():
        assert layer.initial == layer.rank == final[0][name]


@pytest.mark.parametrize(
    ("ranks", "budget", "words"),
    [
        ({"*": 2}, Budget(ranks=9), r"allocator\.ranks must cost at most 9 ranks \(the budget, or else .*, got 10"),
        ({"*": 1}, Budget(parameters=100), r"must cost at most 100 parameters \(the budget, or else .*, got 184"),
        ({"*.quory": 1}, FULL, r"'\*\.quory' matches no adapted layer, for example 'bert"),
        ({"*": 5}, Budget(ranks=1000), r"a layer's rank must be in 0\.\.4 \(model\.max_rank\), got 5"),
    ],
)
def test_what_cannot_be_is_refused(ranks: Any, budget: Budget, words: str, lab: Any) -> None:
    with pytest.raises(ValueError, match=words):
        lab.Training(Static(ranks=ranks), budget)


@pytest.mark.parametrize("ranks", [{}, {"*": -1}, {"*": 1.5}, {"*": "2"}, {1: 1}])
def test_bad_ranks_are_refused(ranks: Any) -> None:
    with pytest.raises(ValueError, match="ranks"):
        Static(ranks=ranks)


def test_exactly_the_budget_is_fine(lab: Any) -> None:
    assert lab.Training(Static(ranks={"*": 2}), Budget(ranks=10)).finish()[0].total == 10
