"""An allocator's hooks over one training, whoever runs the loop: a study, another Trainer, or a hand-written loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rankopt.allocators.base import Allocator, Probe, State
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import Layers, pattern_of, shapes_of
from rankopt.training.moments import reset_moments
from rankopt.tuners.base import Attached


class AllocatorHooks:
    """Calls the hooks of one allocator and of other tuners, and records ranks. `training/callback.py` shows when.

    Args:
        allocator: of the training.
        state: what `allocator.start` returned; replaced when a checkpoint is loaded.
        layers: the adapted layers.
        budget: for the unit of the recorded amounts.
        others: what other tuners attached.
    Attributes:
        ranks: step -> amount and ranks in the order of the layers, whenever they changed.
        peak: the active ranks with the most parameters so far.
        probe: passes over training batches, for the allocators that look at them while they train.
        last_penalty: the penalty of the current step, once its gradient is added.
    """

    def __init__(
        self, allocator: Allocator, state: State, layers: Layers, budget: Budget, others: Sequence[Attached] = ()
    ) -> None:
        self.others = others
        self.allocator, self.state, self.layers, self.budget = allocator, state, layers, budget
        self.shapes = shapes_of(layers)
        self.ranks: list[dict[str, Any]] = []
        self.peak: dict[str, int] = {}
        self.probe: Probe | None = None
        self.last_penalty = 0.0

    @property
    def allocated(self) -> RankPattern:
        """The ranks that the allocator counts as kept now."""
        return self.allocator.allocated(self.state, self.layers)

    def prepare(self, probe: Probe) -> None:
        """Let the allocator look at data before step 1."""
        self.probe = probe
        self.allocator.prepare(self.state, self.layers, probe)
        for layer in self.layers.values():
            layer.changed, layer.renewed = False, []  # there are no moments yet

    def before_step(self, step: int) -> None:
        """Run before the first forward pass of optimiser step `step` = 1..T."""
        self.allocator.before_step(self.state, self.layers, step)

    def penalty(self) -> Tensor | None:
        """The scalar that the allocator and other tuners add to the loss of this step, or None."""
        terms = [self.allocator.penalty(self.state, self.layers), *(one.penalty() for one in self.others)]
        found = [term for term in terms if term is not None]
        return sum(found[1:], found[0]) if found else None

    def add_penalty_gradient(self, scale: float = 1.0) -> None:
        """Add the gradient of `scale * penalty` to the parameters' gradients.

        The penalty depends on parameters alone, which do not change within a step. Its gradient can therefore be added
        before the backward passes of the task loss, whatever that loss is and however many micro-batches it has.
        """
        penalty = self.penalty()
        self.last_penalty = 0.0 if penalty is None else float(penalty.detach())
        if penalty is not None and penalty.requires_grad:
            (penalty * scale).backward()  # type: ignore[no-untyped-call]

    def after_step(self, step: int, steps: int, optimizer: torch.optim.Optimizer) -> None:
        """Run after optimiser step `step` of `steps`, before gradients are zeroed.

        Raises:
            FloatingPointError: a trained weight is not finite.
        """
        trained = [p.detach() for group in optimizer.param_groups for p in group["params"]]
        if not torch.isfinite(nn.utils.get_total_norm(trained, norm_type=float("inf"))):
            raise FloatingPointError(f"the weights are no longer finite at step {step} of {steps}")
        self.allocator.after_step(self.state, self.layers, step)
        if self.probe is not None:
            self.allocator.review(self.state, self.layers, step, self.probe)
        for one in self.others:
            one.after_step(step)
        for layer in self.layers.values():
            reset_moments(optimizer, layer)

    def record_ranks(self, step: int) -> None:
        """Record the ranks after a step if they changed; step 0 is before the first one."""
        active = pattern_of(self.layers)
        if not self.peak or active.parameters(self.shapes) > RankPattern(self.peak).parameters(self.shapes):
            self.peak = dict(active)
        pattern = self.allocated
        ranks = tuple(pattern[name] for name in self.layers)
        if not self.ranks or tuple(self.ranks[-1]["ranks"]) != ranks:
            self.ranks.append({"step": step, "amount": self.budget.spent(pattern, self.shapes), "ranks": ranks})
