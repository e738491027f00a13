"""Budgets: how many components a model may keep, which ones, and how a budget changes during training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rankopt.core.pattern import RankPattern, Shape, Shapes

Unit = Literal["ranks", "parameters"]
Mask = dict[str, list[bool]]
"""For every layer, whether each of its components is kept."""


class Budget(BaseModel):
    """An upper limit over all adapted layers, in components (ranks) or in adapter parameters.

    Exactly one of the three amounts is given. `mean_rank: r` is the cost of rank r in every layer in the chosen unit:
    `r * n` ranks for n layers, or `r * sum_k (fan_in_k + fan_out_k)` parameters.

    Args:
        mean_rank: mean rank of the layers.
        ranks: total number of components.
        parameters: total number of adapter parameters. Gates cost nothing, because they are merged into the factors.
        unit: unit of `mean_rank`; `ranks` and `parameters` are their own unit.
    Example:
        >>> shapes = {"q": Shape(4, 4), "ffn": Shape(4, 16)}
        >>> Budget(mean_rank=2).amount(shapes), Budget(mean_rank=2, unit="parameters").amount(shapes)
        (4, 56)
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mean_rank: float | None = Field(None, ge=0, allow_inf_nan=False)
    ranks: int | None = Field(None, ge=0)
    parameters: int | None = Field(None, ge=0)
    unit: Unit = "ranks"

    @model_validator(mode="after")
    def _one_amount(self) -> Budget:
        given = [name for name in ("mean_rank", "ranks", "parameters") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of mean_rank, ranks, parameters, got {' and '.join(given) or 'none'}")
        if given[0] != "mean_rank" and "unit" in self.model_fields_set and self.unit != given[0]:
            raise ValueError(f"unit goes with mean_rank; {given[0]} is already counted in {given[0]}")
        if given[0] == "parameters":
            object.__setattr__(self, "unit", "parameters")
        return self

    @classmethod
    def of(cls, amount: int, unit: Unit) -> Budget:
        """A budget of an absolute amount."""
        return cls(ranks=amount) if unit == "ranks" else cls(parameters=amount)

    def cost(self, shape: Shape) -> int:
        """The cost of one component of a layer, in this budget's unit."""
        return 1 if self.unit == "ranks" else shape.cost

    def amount(self, shapes: Shapes) -> int:
        """The limit for these layers, in this budget's unit."""
        if self.mean_rank is not None:
            return round(self.mean_rank * sum(self.cost(shape) for shape in shapes.values()))
        return self.ranks if self.ranks is not None else self.parameters or 0

    def spent(self, pattern: RankPattern, shapes: Shapes) -> int:
        """The cost of a pattern, in this budget's unit."""
        return pattern.total if self.unit == "ranks" else pattern.parameters(shapes)

    def level(self, shapes: Shapes) -> float:
        """The uniform rank that this budget allows."""
        return self.amount(shapes) / max(1, sum(self.cost(shape) for shape in shapes.values()))

    def select(self, importance: Mapping[str, Sequence[float]], shapes: Shapes) -> Mask:
        """Keep the most important components within the budget.

        Components are visited in descending order of importance (per parameter for a budget in parameters), ties in
        the order (layer, index). A component is kept if it still fits. The result is within budget, no other component
        would fit, and the order of the mapping does not matter.

        Args:
            importance: for every layer, one finite number per component; it may be negative.
            shapes: the shape of every layer in `importance`.
        Returns:
            For every layer, one boolean per component.
        Raises:
            ValueError: an importance is NaN or infinite.
        Example:
            >>> shapes = {"q": Shape(4, 4), "ffn": Shape(4, 16)}
            >>> Budget(ranks=2).select({"q": [3.0, 1.0], "ffn": [2.0, 0.5]}, shapes)
            {'q': [True, False], 'ffn': [True, False]}
        """
        ranked = []
        for name, values in importance.items():
            cost = self.cost(shapes[name])
            for index, value in enumerate(values):
                if not math.isfinite(value):
                    raise ValueError(f"importance must be finite, got {value} for component {index} of {name}")
                ranked.append((-value / cost, name, index, cost))
        ranked.sort()
        keep: Mask = {name: [False] * len(values) for name, values in importance.items()}
        left = self.amount(shapes)
        for _, name, index, cost in ranked:
            if cost <= left:
                keep[name][index] = True
                left -= cost
        return keep

    def share(self, weights: Mapping[str, float], shapes: Shapes, max_rank: int, min_rank: int = 0) -> RankPattern:
        """Ranks in proportion to weights, as closely as integer ranks and the budget allow.

        Uses the highest-averages rule of Sainte-Lague: component i of layer k has importance `w_k / (2 i + 1)`, and
        `select` does the rest. With equal weights, ranks differ by at most one while one more rank everywhere fits.

        Args:
            weights: one number per layer, at least zero.
            shapes: the layers' shapes.
            max_rank: upper limit of each rank.
            min_rank: rank that every layer gets first, as far as the budget goes.
        Example:
            >>> shapes = {"a": Shape(4, 4), "b": Shape(4, 4)}
            >>> Budget(ranks=8).share({"a": 1.0, "b": 3.0}, shapes, 16)
            RankPattern({'a': 2, 'b': 6})
            >>> Budget(ranks=8).share({"a": 1.0, "b": 99.0}, shapes, 16, min_rank=2)
            RankPattern({'a': 2, 'b': 6})
        """
        first = (1 + max(weights.values(), default=0.0)) * (min_rank + 1)  # over (index + 1): still above every weight
        importance = {
            # times the cost, because `select` divides by it: weights set ranks, also under a parameter budget
            name: [
                self.cost(shapes[name]) * (first / (index + 1) if index < min_rank else weight / (2 * index + 1))
                for index in range(max_rank)
            ]
            for name, weight in weights.items()
        }
        return RankPattern({name: sum(kept) for name, kept in self.select(importance, shapes).items()})

    def uniform(self, shapes: Shapes, max_rank: int) -> RankPattern:
        """The most even pattern: the largest rank that fits for every layer, and one more for layers where that fits.

        Example:
            >>> Budget(ranks=5).uniform({"a": Shape(2, 2), "b": Shape(2, 2)}, 8)
            RankPattern({'a': 3, 'b': 2})
        """
        level = min(int(self.level(shapes)), max_rank - 1)
        return self.share(dict.fromkeys(shapes, 1.0), shapes, level + 1)


class Schedule(BaseModel):
    """The budget at every step: constant, or AdaLoRA's cubic decay.

    With T steps, warm-up t_i, final phase t_f, initial budget b0 and final budget bT:

        b(t) = b0                                                          t <= t_i
        b(t) = int(bT + (b0 - bT) (1 - (t - t_i) / (T - t_f - t_i))^3)     t_i < t <= T - t_f
        b(t) = bT                                                          t >  T - t_f

    Source: Zhang et al. 2023 (2303.10512), as in the authors' code. Eq. (14) of the paper also has t_f in the
    numerator, so it would start above b0.

    Example:
        >>> schedule = Schedule(start=216, end=144, steps=1000, warmup=100, final=300)
        >>> [schedule.at(step) for step in (100, 400, 699, 1000)]
        [216, 153, 144, 144]
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    start: int = Field(ge=0)
    end: int = Field(ge=0)
    steps: int = Field(ge=1)
    warmup: int = Field(0, ge=0)
    final: int = Field(0, ge=0)

    @classmethod
    def constant(cls, amount: int, steps: int) -> Schedule:
        """The same budget at every step."""
        return cls(start=amount, end=amount, steps=steps)

    def falling(self, step: int) -> bool:
        """Whether a step lies between the warm-up and the final phase."""
        return self.warmup < step <= self.steps - self.final

    def at(self, step: int) -> int:
        """The budget at a step, counted from 1."""
        if step <= self.warmup:
            return self.start
        if step > self.steps - self.final:
            return self.end
        left = 1 - (step - self.warmup) / (self.steps - self.final - self.warmup)
        return int(self.end + (self.start - self.end) * left**3)
