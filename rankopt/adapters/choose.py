"""Which ranks to keep: the knapsack over what every component of an adapter is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from rankopt.adapters.adapter import Module
from rankopt.analysis.knapsack import TableTooLargeError, knapsack
from rankopt.analysis.knapsack_core import best_at, cheapest
from rankopt.core.pattern import RankPattern

Floats = NDArray[np.float64]

TABLE = 1 << 22
"""Entries up to which the knapsack's whole table is made; it takes a fraction of a second."""

AMOUNTS = ("budget", "ratio", "energy", "rank")

ROUNDING = 1e-14
"""Components worth less than this share of all together are rounding of their factors' product."""


class Target(BaseModel):
    """How small an adapter should become: exactly one of four amounts.

    Args:
        budget: parameters of the factors that may be kept.
        ratio: the same as a share of the adapter's.
        energy: the share of the squared norm that must be kept, with as few parameters as possible.
        rank: of every module that has as many components.
        uniform: one rank for all modules, padded where one has fewer components.
    Example:
        >>> Target(ratio=0.5).parameters(2000)
        1000
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    budget: int | None = Field(None, ge=1)
    ratio: float | None = Field(None, gt=0, le=1)
    energy: float | None = Field(None, gt=0, le=1)
    rank: int | None = Field(None, ge=1)
    uniform: bool = False

    @model_validator(mode="after")
    def _one(self) -> Target:
        given = [name for name in AMOUNTS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(AMOUNTS)}, got {' and '.join(given) or 'none'}")
        return self

    def parameters(self, full: int) -> int:
        """The parameters that may be kept of `full`."""
        if self.budget is not None:
            return min(self.budget, full)
        return full if self.ratio is None else int(self.ratio * full + 1e-9)


@dataclass(frozen=True)
class RankChoice:
    """A pattern and what it keeps.

    Attributes:
        pattern: full module name -> rank.
        parameters: of the factors kept.
        energy: the share of the gain kept, 1 where there is nothing to keep.
        exact: whether no pattern of as many parameters keeps more, among those in which modules with attached tensors
            keep a component; False where only the greedy rule was affordable (many different costs without a common
            divisor).
    """

    pattern: RankPattern
    parameters: int
    energy: float
    exact: bool


def choose(modules: Mapping[str, Module], gains: Mapping[str, Floats], target: Target) -> RankChoice:
    """The pattern that keeps the most for a target.

    Every component is worth its squared singular value and costs its true `in + out` parameters. Modules with tensors
    attached to them (a bias, DoRA's magnitudes) keep at least one component.

    Args:
        modules: of the adapter.
        gains: for every module what its components are worth, falling.
        target: budget, ratio or energy.
    Raises:
        ValueError: the budget is below the smallest adapter that PEFT can hold.
    """
    costs = {name: module.shape.cost for name, module in modules.items()}
    full = sum(module.parameters for module in modules.values())
    if not full:  # everything in it is suppressed: there is nothing to choose
        pattern = with_one(modules, dict.fromkeys(modules, 0))
        return RankChoice(pattern, sum(costs[name] * rank for name, rank in pattern.items()), 1.0, True)
    allowed = target.parameters(full)
    wanted = float(sum(values.sum() for values in gains.values())) * (target.energy or 1.0) * (1 - ROUNDING)
    if target.rank is not None:
        most = max(len(values) for values in gains.values())
        kept = {name: min(target.rank, most if target.uniform else len(values)) for name, values in gains.items()}
        pattern, exact = RankPattern(kept), True
    elif target.uniform:
        pattern, exact = _uniform(gains, costs, allowed, None if target.energy is None else wanted), True
    else:
        pattern, exact = _best(modules, gains, costs, allowed, None if target.energy is None else wanted)
    least = min(costs.values()) if not pattern.total else 0
    if least > allowed:
        raise ValueError(f"the budget must pay for one component, {least:,} parameters here, got {allowed:,}")
    pattern = with_one(modules, pattern)
    total = float(sum(values.sum() for values in gains.values()))
    held = float(sum(gains[name][:rank].sum() for name, rank in pattern.items()))
    return RankChoice(
        pattern, sum(costs[name] * rank for name, rank in pattern.items()), held / total if total > 0 else 1.0, exact
    )


def with_one(modules: Mapping[str, Module], pattern: Mapping[str, int]) -> RankPattern:
    """The pattern, or where it keeps nothing the cheapest single component: PEFT knows no adapter without a target."""
    if not any(pattern.values()):
        cheapest_one = min(modules, key=lambda name: modules[name].shape.cost)
        pattern = {name: int(name == cheapest_one) for name in pattern}
    return RankPattern(dict(pattern))


def _best(
    modules: Mapping[str, Module],
    gains: Mapping[str, Floats],
    costs: Mapping[str, int],
    allowed: int,
    wanted: float | None,
) -> tuple[RankPattern, bool]:
    floors = {name: module.floor for name, module in modules.items()}
    least = sum(costs[name] * floor for name, floor in floors.items())
    if allowed < least:
        raise ValueError(f"the budget must be at least {least:,} parameters for this adapter, got {allowed:,}")
    fixed = float(sum(gains[name][:floor].sum() for name, floor in floors.items()))
    curves = {name: np.concatenate([[0.0], np.cumsum(values[floors[name] :])]) for name, values in gains.items()}
    left = allowed - least
    try:
        front = knapsack(curves, costs, left, TABLE)
        more, exact = front.at(left) if wanted is None else front.cheapest(wanted - fixed), True
    except TableTooLargeError:
        more, exact = best_at(curves, costs, left) if wanted is None else cheapest(curves, costs, wanted - fixed)
    return RankPattern({name: rank + floors[name] for name, rank in more.items()}), exact


def _uniform(gains: Mapping[str, Floats], costs: Mapping[str, int], allowed: int, wanted: float | None) -> RankPattern:
    """One rank everywhere: the largest that is paid for, or the smallest that is worth `wanted`. Modules of fewer
    components are padded with zeros, which is why they cost as much as the others."""
    largest = max(len(values) for values in gains.values())
    rank = min(largest, allowed // sum(costs.values()))
    if wanted is not None:
        worth = (sum(float(values[:rank].sum()) for values in gains.values()) for rank in range(1, largest + 1))
        rank = next((rank for rank, value in enumerate(worth, start=1) if value >= wanted), largest)
    if not rank:
        raise ValueError(
            f"the budget must pay for rank 1 everywhere, {sum(costs.values()):,} parameters here, got {allowed:,}"
        )
    return RankPattern(dict.fromkeys(gains, rank))
