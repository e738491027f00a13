"""Build the allocator, scale policy and absolute budget of a trial."""

from __future__ import annotations

from typing import ClassVar

from rankopt.allocators import ALLOCATORS
from rankopt.allocators.base import Allocator, State
from rankopt.core.budget import Budget
from rankopt.core.spec import decode
from rankopt.core.trial_spec import TrialSpec
from rankopt.lowrank.layers import Layers, shapes_of
from rankopt.lowrank.scale import ScalePolicy


class Unranked(Allocator):
    """In place of an allocator where no layer has ranks, so that one loop trains every trial."""

    needs_budget: ClassVar[bool] = False

    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        return {}


def build_allocator(spec: TrialSpec) -> Allocator:
    """The allocator of a trial; `Unranked` for one whose tuners have no ranks.

    Raises:
        ValueError: an unknown name, a missing budget, or a scale policy under which a change of mask would change the
            trained function.
        pydantic.ValidationError: a wrong option.
    """
    if spec.allocator is None:
        return Unranked()
    kind = ALLOCATORS.get(spec.allocator.name)
    if kind is None:
        raise ValueError(f"allocator.name must be one of {', '.join(ALLOCATORS)}, got {spec.allocator.name!r}")
    allocator = decode(kind, spec.allocator.options)
    if spec.budget is None and kind.needs_budget:
        raise ValueError(f"budget must be given for the allocator {spec.allocator.name!r}")
    policy = spec.model.scale
    if policy != "published" and policy not in kind.scales:
        raise ValueError(
            f"model.scale must be one of published, {', '.join(sorted(kind.scales))} for the allocator "
            f"{spec.allocator.name!r}, got {policy!r}"
        )
    return allocator


def scale_policy(spec: TrialSpec, allocator: Allocator) -> ScalePolicy:
    """The scale policy of a trial."""
    return allocator.scale if spec.model.scale == "published" else spec.model.scale


def absolute_budget(spec: TrialSpec, layers: Layers) -> Budget:
    """The trial's budget as an absolute amount; without one, all components.

    Raises:
        ValueError: more than the layers hold at `model.max_rank`, or above zero and below the cost of one component.
    """
    shapes = shapes_of(layers)
    if not shapes:
        return Budget(ranks=0)
    full = Budget(mean_rank=spec.model.max_rank, unit=spec.budget.unit if spec.budget else "ranks")
    budget = spec.budget or full
    least = min(budget.cost(shape) for shape in shapes.values())
    asked = max(budget.mean_rank or 0, budget.ranks or 0, budget.parameters or 0)
    if asked > 0 and budget.amount(shapes) < least:
        raise ValueError(
            f"budget must be 0 (train the head only) or at least {least} {budget.unit}, the cost of one component, "
            f"got {asked:g}"
        )
    if budget.amount(shapes) > full.amount(shapes):
        raise ValueError(
            f"budget must be at most {full.amount(shapes)} {budget.unit} for {len(shapes)} layers of model.max_rank "
            f"{spec.model.max_rank}, got {budget.amount(shapes)}"
        )
    return Budget.of(budget.amount(shapes), budget.unit)
