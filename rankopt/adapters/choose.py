"""Choose the rank of every module: an exact knapsack over the gains of its components."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rankopt.adapters.module import Module
from rankopt.analysis.knapsack import TableTooLargeError, knapsack
from rankopt.analysis.knapsack_core import best_at, cheapest
from rankopt.core.errors import violations
from rankopt.core.pattern import RankPattern

Floats = NDArray[np.float64]

TABLE = 1 << 22
"""Most entries of the knapsack's full table, which takes a fraction of a second."""

AMOUNTS = ("budget", "ratio", "energy", "rank")

ROUNDING = 1e-14
"""A share of the total gain that is attributed to rounding."""


class Target(BaseModel):
    """The size of an adapter after compression: exactly one of four amounts.

    Args:
        budget: largest number of parameters of the factors.
        ratio: the same as a share of the adapter's parameters.
        energy: smallest share of the squared norm to keep, with as few parameters as possible.
        rank: largest rank of every module.
        uniform: use one rank for all modules; smaller modules are padded with zeros.
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
        """The largest number of parameters, for an adapter of `full` parameters."""
        if self.budget is not None:
            return min(self.budget, full)
        return full if self.ratio is None else int(self.ratio * full + 1e-9)


def target_of(uniform: bool, **amounts: float | None) -> Target:
    """A target from the arguments of a function.

    Args:
        uniform: see `Target`.
        amounts: of which exactly one is given.
    Raises:
        ValueError: none or several are given, or one is out of its limits; one line.
    """
    try:
        return Target.model_validate({"uniform": uniform, **amounts})
    except ValidationError as error:
        raise ValueError("; ".join(map(str, violations(error, Target)))) from None


@dataclass(frozen=True)
class RankChoice:
    """The rank of every module, and the share of the gain that these ranks keep.

    Attributes:
        pattern: full module name -> rank.
        parameters: of the kept factors.
        energy: kept share of the total gain; 1 if the total is zero.
        exact: whether this is the optimum, given that modules with attached tensors keep at least one component. False
            if the table was too large (many different costs without a common divisor) and the greedy rule was used.
    """

    pattern: RankPattern
    parameters: int
    energy: float
    exact: bool


def choose(modules: Mapping[str, Module], gains: Mapping[str, Floats], target: Target) -> RankChoice:
    """The ranks that keep the largest total gain for a target.

    A component costs `in + out` parameters. Modules with attached tensors (a bias, DoRA's magnitudes) keep at least one
    component.

    Args:
        modules: of the adapter.
        gains: module name -> gain of each of its components, decreasing.
        target: the size.
    Raises:
        ValueError: the budget is below the smallest adapter that PEFT can load.
    """
    costs = {name: module.shape.cost for name, module in modules.items()}
    full = sum(module.parameters for module in modules.values())
    if not full:  # all components are suppressed
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
        raise ValueError(
            f"the budget must be at least {least:,} parameters, the cost of one component, got {allowed:,}"
        )
    pattern = with_one(modules, pattern)
    total = float(sum(values.sum() for values in gains.values()))
    held = float(sum(gains[name][:rank].sum() for name, rank in pattern.items()))
    return RankChoice(
        pattern, sum(costs[name] * rank for name, rank in pattern.items()), held / total if total > 0 else 1.0, exact
    )


def with_one(modules: Mapping[str, Module], pattern: Mapping[str, int]) -> RankPattern:
    """The pattern, or the cheapest single component if it is all zero: PEFT cannot load an adapter without a target."""
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
    """One rank everywhere: the largest within the budget, or the smallest whose gain is at least `wanted`. Padding with
    zeros costs parameters too."""
    largest = max(len(values) for values in gains.values())
    rank = min(largest, allowed // sum(costs.values()))
    if wanted is not None:
        worth = (sum(float(values[:rank].sum()) for values in gains.values()) for rank in range(1, largest + 1))
        rank = next((rank for rank, value in enumerate(worth, start=1) if value >= wanted), largest)
    if not rank:
        raise ValueError(
            f"the budget must be at least {sum(costs.values()):,} parameters, the cost of rank 1 everywhere, "
            f"got {allowed:,}"
        )
    return RankPattern(dict.fromkeys(gains, rank))
