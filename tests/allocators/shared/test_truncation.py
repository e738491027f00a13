"""Rules of truncation against brute force."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rankopt.allocators.shared.truncation import smaller_cuts, spectral_pattern
from rankopt.core.budget import Budget, Unit
from rankopt.core.pattern import RankPattern, Shape
from rankopt.importance.spectral import energy

Spectra = dict[str, Tensor]
VALUES = st.floats(0.01, 10) | st.sampled_from([0.0, 1.0, 2.0])


@st.composite
def problems(draw: st.DrawFn) -> tuple[Spectra, dict[str, Shape]]:
    names = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True))
    spectra = {n: torch.tensor(sorted(draw(st.lists(VALUES, min_size=1, max_size=3)), reverse=True)) for n in names}
    return spectra, {name: Shape(draw(st.integers(1, 6)), draw(st.integers(1, 6))) for name in names}


def patterns(spectra: Spectra) -> list[RankPattern]:
    """Every way to cut every layer."""
    levels = itertools.product(*[range(len(S) + 1) for S in spectra.values()])
    return [RankPattern(dict(zip(spectra, ranks, strict=True))) for ranks in levels]


def kept(spectra: Spectra, pattern: RankPattern) -> float:
    return sum(float(S[: pattern[name]].double().square().sum()) for name, S in spectra.items())


@given(problems(), st.integers(0, 10))
def test_global_keeps_the_most_energy_for_a_number_of_ranks(
    problem: tuple[Spectra, dict[str, Shape]], amount: int
) -> None:
    """No pattern within the budget keeps more (brute force over all of them)."""
    spectra, shapes = problem
    pattern = spectral_pattern(spectra, Budget(ranks=amount), shapes, "global")
    best = max(kept(spectra, other) for other in patterns(spectra) if other.total <= amount)
    assert pattern.total == min(amount, sum(map(len, spectra.values())))
    assert kept(spectra, pattern) == pytest.approx(best)


@given(problems(), st.integers(0, 40))
def test_cost_is_greedy_by_energy_per_parameter(problem: tuple[Spectra, dict[str, Shape]], amount: int) -> None:
    """Brute force: where the greedy choice uses the budget up, no pattern of the same cost keeps more."""
    spectra, shapes = problem
    pattern = spectral_pattern(spectra, Budget(parameters=amount), shapes, "cost")
    spent = pattern.parameters(shapes)
    assert spent <= amount
    order = sorted(
        ((name, i) for name, S in spectra.items() for i in range(len(S))),
        key=lambda c: (-(float(spectra[c[0]][c[1]].double()) ** 2) / shapes[c[0]].cost, c),
    )
    left, expected = amount, dict.fromkeys(spectra, 0)
    for name, _ in order:
        if shapes[name].cost <= left:
            expected[name] += 1
            left -= shapes[name].cost
    assert pattern == expected
    first = sum(1 for _ in itertools.takewhile(lambda c: c[1] < pattern[c[0]], order))
    if first == pattern.total:  # nothing was passed over, so it is the optimum for what it spends
        assert kept(spectra, pattern) == pytest.approx(
            max(kept(spectra, other) for other in patterns(spectra) if other.parameters(shapes) <= spent)
        )


@given(problems(), st.integers(0, 40), st.sampled_from(["ranks", "parameters"]))
def test_energy_keeps_the_largest_equal_share(
    problem: tuple[Spectra, dict[str, Shape]], amount: int, unit: Unit
) -> None:
    """The largest tau whose smallest patterns fit, tried at every share that any layer can have."""
    spectra, shapes = problem
    budget = Budget.of(amount, unit)

    def shares(S: Tensor) -> list[float]:
        """Kept by the first 0, 1, ... values."""
        return [0.0, *energy(S).tolist()] if float(S.sum()) else [1.0]

    def smallest(tau: float) -> RankPattern:
        return RankPattern(
            {n: next(k for k, share in enumerate(shares(S)) if share >= tau) for n, S in spectra.items()}
        )

    taus = sorted({0.0, *itertools.chain(*map(shares, spectra.values()))})
    fitting = [pattern for pattern in map(smallest, taus) if budget.spent(pattern, shapes) <= amount]
    assert spectral_pattern(spectra, budget, shapes, "energy") == fitting[-1]


@pytest.mark.parametrize("rule", ["global", "cost", "energy", "uniform"])
@given(problem=problems(), amount=st.integers(0, 40), unit=st.sampled_from(["ranks", "parameters"]))
def test_every_rule_is_within_budget(
    rule: Any, problem: tuple[Spectra, dict[str, Shape]], amount: int, unit: Unit
) -> None:
    spectra, shapes = problem
    budget = Budget.of(amount, unit)
    pattern = spectral_pattern(spectra, budget, shapes, rule)
    assert budget.spent(pattern, shapes) <= amount
    assert all(pattern[name] <= len(S) for name, S in spectra.items())
    shuffled = dict(reversed(spectra.items()))
    assert spectral_pattern(shuffled, budget, shapes, rule) == pattern


def test_uniform_gives_every_layer_the_same_rank() -> None:
    shapes = {"wide": Shape(50, 50), "narrow": Shape(15, 15)}
    spectra = {"wide": torch.tensor([9.0, 8.0, 7.0]), "narrow": torch.tensor([3.0, 2.0, 1.0])}
    assert spectral_pattern(spectra, Budget(ranks=4), shapes, "uniform") == {"wide": 2, "narrow": 2}


def test_smaller_cuts_are_cuts_and_distinct() -> None:
    """Half of a budget of one component pays for none, and so does a quarter."""
    shapes, spectra = {"a": Shape(4, 4), "b": Shape(4, 4)}, {"a": torch.tensor([2.0]), "b": torch.tensor([1.0])}
    own = RankPattern({"a": 1, "b": 0})
    assert smaller_cuts(own, spectra, Budget(ranks=1), shapes, "global") == [RankPattern({"a": 0, "b": 0})]
