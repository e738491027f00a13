"""Moving components at a constant budget: what fits, what opens, and when."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rankopt.allocators.elalora import ElaLoRA
from rankopt.allocators.shared.exchange import exchange, exchanges, gains, room_beside
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern, Shape
from rankopt.lowrank.layers import pattern_of


def test_the_number_of_moves_is_elaloras() -> None:
    """Numbers from the authors' scheduler: 4 moves at first, warm-up 10, final phase 20, 100 steps."""
    state = {"first": 10, "last": 80, "interval": 1}
    theirs = {11: 4, 18: 4, 25: 4, 32: 4, 39: 4, 46: 3, 53: 3, 60: 3, 67: 2, 74: 1}
    assert {step: exchanges(state, step, 4) for step in theirs} == theirs
    assert [exchanges(state, step, 4) for step in (1, 10, 80, 99)] == [0, 0, 0, 0]


def test_moves_come_at_intervals_after_the_warm_up() -> None:
    state = {"first": 3, "last": 20, "interval": 5}
    assert [step for step in range(1, 25) if exchanges(state, step, 9)] == [8, 13, 18]


@given(
    st.lists(st.integers(0, 3), min_size=3, max_size=3), st.integers(0, 120), st.permutations("abc"),
    st.sampled_from(["ranks", "parameters"]),
)  # fmt: skip
def test_gains_fill_the_budget(start: list[int], extra: int, order: list[str], unit: Any) -> None:
    """Never over it, never over a layer's capacity, and nothing that would still fit is left out."""
    shapes = {"a": Shape(4, 4), "b": Shape(4, 8), "c": Shape(10, 10)}
    ranks = RankPattern(dict(zip("abc", start, strict=True)))
    budget = Budget.of(Budget.of(0, unit).spent(ranks, shapes) + extra, unit)
    gained = gains(ranks, order, budget, shapes, dict.fromkeys("abc", 4))
    after = RankPattern({name: rank + gained.get(name, 0) for name, rank in ranks.items()})
    left = budget.amount(shapes) - budget.spent(after, shapes)
    assert left >= 0
    assert max(after.values()) <= 4
    assert all(budget.cost(shapes[name]) > left for name, rank in after.items() if rank < 4)
    if unit == "ranks" and 0 < extra <= 3 and max(start) < 4:
        assert set(gained) == set(order[:extra])


def test_an_exchange_opens_free_slots(lab: Any) -> None:
    """What is dropped is masked, what is new has the drawn factors, and no other component changes."""
    training = lab.Training(ElaLoRA(), Budget(mean_rank=2))
    layers, names = training.layers, list(training.layers)
    before = training.weights()
    dropped = [(names[0], 0), (names[1], 1)]
    assert room_beside(layers, [name for name, _ in dropped]) == 6
    new = exchange(
        training.state, layers, dropped, [names[2], names[2], names[3]], 5,
        lambda rows, generator: torch.full((rows.shape[1],), float(len(rows))), lambda layer: 0.5,
    )  # fmt: skip
    assert new == [(names[2], 2), (names[2], 3)]
    assert pattern_of(layers) == {**dict.fromkeys(names, 2), names[0]: 1, names[1]: 1, names[2]: 4}
    assert layers[names[0]].m.tolist() == [False, True, False, False]
    assert layers[names[2]].A[:, 0].tolist()[2:] == [2.0, 3.0], "the second draw sees the first"
    assert layers[names[2]].renewed == [2, 3]
    now = training.weights()
    for name in names:
        for key in ("A", "g"):
            kept = 2 if name == names[2] else 4
            assert torch.equal(now[f"{name}.{key}"][:kept], before[f"{name}.{key}"][:kept])


def test_no_step_between_the_phases_is_refused(lab: Any) -> None:
    with pytest.raises(ValueError, match=r"allocator\.warmup \+ allocator\.final must be fewer than .* got 6 \+ 6"):
        lab.Training(ElaLoRA(warmup=0.5, final=0.5), Budget(mean_rank=2))


def test_a_full_network_moves_nothing(lab: Any) -> None:
    training = lab.Training(ElaLoRA(), Budget(mean_rank=4)).advance()
    assert {pattern.total for pattern in training.trace} == {20}
    assert training.state["notes"] == ["model.max_rank leaves no layer room to grow"]
    assert all(layer.m.all() for layer in training.layers.values())
