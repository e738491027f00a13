"""The chosen ranks are optimal, compared with brute force."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rankopt
from rankopt.adapters.adapter import read_adapter
from rankopt.adapters.choose import Target


def test_the_optimum_by_brute_force(adapter_of: Callable[..., Path]) -> None:
    """Over all patterns of a small adapter: most energy for a budget, fewest parameters for a share of energy."""
    found = rankopt.spectrum(adapter_of("some layers"))
    modules = found.adapter.modules
    patterns = [
        dict(zip(modules, ranks, strict=True))
        for ranks in itertools.product(*(range(module.rank + 1) for module in modules.values()))
        if any(ranks)
    ]
    cost = {name: module.shape.cost for name, module in modules.items()}

    def price(pattern: dict[str, int]) -> int:
        return sum(cost[name] * rank for name, rank in pattern.items())

    def energy(pattern: dict[str, int]) -> float:
        return sum(float(np.square(found.modules[name].S[:rank]).sum()) for name, rank in pattern.items()) / found.total

    for budget in range(min(cost.values()), found.adapter.parameters + 1, 8):
        best = max(energy(pattern) for pattern in patterns if price(pattern) <= budget)
        choice = found.choose(Target(budget=budget))
        assert choice.exact
        assert choice.energy == pytest.approx(best, abs=1e-9)
        assert choice.energy >= found.choose(Target(budget=budget)).energy
        if budget >= sum(cost.values()):
            assert choice.energy >= found.choose(Target(budget=budget, uniform=True)).energy - 1e-12
    for share in (0.3, 0.8, 0.9, 0.99):
        fewest = min(price(pattern) for pattern in patterns if energy(pattern) >= share)
        assert found.choose(Target(energy=share)).parameters == fewest


def test_without_the_full_table(adapter_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the table is too large, the search near the linear optimum finds the same ranks."""
    found = rankopt.spectrum(adapter_of("rank and alpha patterns"))
    targets = [Target(**{kind: value}) for kind in ("ratio", "energy") for value in (0.2, 0.5, 0.9)]
    exact = [found.choose(target) for target in targets]
    monkeypatch.setattr("rankopt.adapters.choose.TABLE", 1)
    for target, choice in zip(targets, exact, strict=True):
        other = found.choose(target)
        assert other.exact
        assert other.energy == pytest.approx(choice.energy, abs=1e-12) or target.energy
        assert other.parameters == choice.parameters or target.ratio
    monkeypatch.setattr("rankopt.analysis.knapsack_core.STATES", 0)
    assert not all(found.choose(target).exact for target in targets)


@pytest.mark.parametrize(
    ("amount", "message"),
    [
        ({}, "exactly one of budget, ratio, energy, rank, got none"),
        ({"budget": 5, "energy": 0.5}, "got budget and energy"),
        ({"budget": 31}, "must be at least 32 parameters, the cost of one component, got 31"),
        ({"budget": 100, "uniform": True}, "the cost of rank 1 everywhere"),
        ({"energy": 1.5}, "must be at most 1, got 1.5"),
    ],
)
def test_impossible_sizes(
    amount: dict[str, Any], message: str, adapter_of: Callable[..., Path], tmp_path: Path
) -> None:
    """One reason, and no folder is made."""
    with pytest.raises(ValueError, match=message):
        rankopt.compress(adapter_of("plain"), tmp_path / "b", **amount)
    assert not (tmp_path / "b").exists()


def test_a_rank_above_the_adapters_changes_nothing(adapter_of: Callable[..., Path], tmp_path: Path) -> None:
    """With and without `uniform`, nothing is padded to the requested rank."""
    adapter = adapter_of("plain")
    for uniform in (False, True):
        out = tmp_path / f"same-{uniform}"
        rankopt.compress(adapter, out, rank=100_000_000, uniform=uniform)
        assert read_adapter(out).parameters == read_adapter(adapter).parameters
