"""A training whose loop is not ours: when it begins and ends, and the checks that it goes right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rankopt.allocators.base import Allocator
from rankopt.core.budget import Budget
from rankopt.lowrank.layers import Layers, apply_pattern
from rankopt.training.foreign_model import output_loss
from rankopt.training.hooks import AllocatorHooks
from rankopt.training.probe import TrainingProbe

Batch = Mapping[str, Any]
Loss = Callable[[nn.Module, Any], Tensor]
UNKNOWN = 10**6
"""Steps that `start` is given before their number is known; its state is replaced when training begins."""


class OwnTraining:
    """The state of a training in a user's Trainer or loop, which calls its methods in this order.

        begin, then for every optimiser step: enter_step, hooks.before_step, ..., leave_step, hooks.after_step; finish

    Args:
        net: the adapted model.
        layers: its adapted layers.
        head: full names of the modules trained in full.
        allocator: decides the ranks.
        budget: an absolute one.
        seed: of initialisation and of what the allocator draws.
        steps: optimiser steps, None until they are known.
    Attributes:
        hooks: the allocator's.
        done: optimiser steps so far.
        finished: whether the final pattern is in the model.
    """

    def __init__(
        self, net: nn.Module, layers: Layers, head: tuple[str, ...], allocator: Allocator, budget: Budget, seed: int,
        steps: int | None,
    ) -> None:  # fmt: skip
        self.net, self.layers, self.head, self.seed = net, layers, head, seed
        self.steps, self.done, self.finished = steps, 0, False
        # now, so that an optimiser that is made next holds trained gates; again when training begins, because device
        # and steps may change until then
        self.hooks = AllocatorHooks(allocator, allocator.start(layers, budget, steps or UNKNOWN, seed), layers, budget)
        self._batches: list[Batch] = []
        self._loss: Loss = output_loss
        self._begun = self._inside = False

    @property
    def needs_batches(self) -> bool:
        """Whether the allocator looks at batches and has none yet."""
        kind = type(self.hooks.allocator)
        looks = kind.prepare is not Allocator.prepare or kind.review is not Allocator.review
        return looks and not self._batches

    def keep_batches(self, batches: Iterable[Batch], loss: Loss | None = None) -> None:
        """Keep the batches that the allocator will look at, and the function that computes their mean loss."""
        self._batches, self._loss = list(batches), loss or output_loss

    def begin(self, steps: int | None = None, *, resumed: bool = False) -> None:
        """Start the allocator, and let it look at the batches.

        Args:
            steps: optimiser steps, if the loop knows them.
            resumed: whether a checkpoint is restored next.
        Raises:
            RuntimeError: the training has begun before.
            ValueError: the number of steps is missing or contradicts the one given before, the allocator cannot work
                with it, or batches to look at are missing.
        """
        if self._begun:
            raise RuntimeError(
                "this adapted model has been trained already, or its callback was added twice; call rankopt.adapt on a "
                "fresh model"
            )
        if steps and self.steps and steps != self.steps:
            raise ValueError(f"adapt(steps=...) must be the training's {steps} optimiser steps, got {self.steps}")
        self.steps = steps or self.steps
        if not self.steps:
            raise ValueError("adapt(steps=...) must give the number of optimiser steps, which a loop does not tell")
        allocator = self.hooks.allocator
        reviews = type(allocator).review is not Allocator.review  # in a resumed training too
        if self.needs_batches and (reviews or not resumed):
            raise ValueError(
                f"the allocator {type(allocator).__name__} looks at training batches before step 1: call "
                "adapted.prepare(batches) with a few of them"
            )
        for layer in self.layers.values():
            layer.open(0)
        self.hooks.state = allocator.start(self.layers, self.hooks.budget, self.steps, self.seed)
        self._begun = True
        probe = TrainingProbe(self.net, self.layers, self._on_device, self._run)
        self.hooks.probe = probe
        if not resumed:
            self.hooks.prepare(probe)
            self.hooks.record_ranks(0)

    def enter_step(self, step: int) -> None:
        """Begin an optimiser step.

        Raises:
            RuntimeError: the step before was not left, or all steps are done.
        """
        if not self._begun:
            self.begin()
        if self.finished or step > (self.steps or 0):
            raise RuntimeError(f"step {step} begins, but the training was to have {self.steps} optimiser steps")
        if self._inside:
            raise RuntimeError(f"step {step} begins, but adapted.after_step was not called after the one before")
        self._inside = True

    def leave_step(self, optimizer: torch.optim.Optimizer) -> None:
        """End a step, and count it; the first one is checked.

        Raises:
            RuntimeError: the step had not begun, or no adapter parameter has a gradient.
            ValueError: as `check_optimizer`.
        """
        if not self._inside:
            raise RuntimeError("a step ended that had not begun: call adapted.before_step() before its forward pass")
        self._inside = False
        if self.done == 0:
            self.check_optimizer(optimizer)
            open_layers = [layer for layer in self.layers.values() if layer.rank]
            if open_layers and all(p.grad is None for layer in open_layers for p in (layer.A, layer.B, layer.g)):
                raise RuntimeError(
                    "no adapter parameter has a gradient after the first step: call adapted.after_step before "
                    "gradients are zeroed, and check that the loss depends on the adapted model"
                )
        self.done += 1

    def check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Check that an optimiser holds all adapter parameters that are trained.

        Raises:
            ValueError: one is missing.
        """
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        missing = [
            f"{name}.{key}"
            for name, layer in self.layers.items()
            for key, p in layer.named_parameters(recurse=False)
            if p.requires_grad and id(p) not in held
        ]
        if missing:
            raise ValueError(
                f"the optimiser does not hold {len(missing)} of the adapter's parameters, such as {missing[0]}: create "
                "it after rankopt.adapt, from adapted.parameter_groups(lr) or from the model's trained parameters"
            )

    def check_complete(self) -> None:
        """Check that the allocator has run.

        Raises:
            RuntimeError: steps are missing and the training was not ended on purpose.
        """
        allocator = self.hooks.allocator
        if not self.finished and not allocator.is_fixed() and self.done != self.steps:
            of = f" of {self.steps}" if self.steps else ""
            raise RuntimeError(
                f"the allocator {type(allocator).__name__} has run {self.done}{of} steps: pass "
                "callbacks=[adapted.callback()] to the Trainer, or call adapted.before_step() and adapted.after_step() "
                "at every step; to end a loop early, call adapted.finish()"
            )

    def finish(self) -> None:
        """Put the final pattern into the model, once."""
        if not self.finished:
            apply_pattern(self.layers, self.hooks.allocator.finish(self.hooks.state, self.layers)[0])
            self.finished = True

    def _on_device(self, after: int) -> Iterator[Any]:
        """The batches that were given; with `after`, in a cycle from that step's on."""
        device = next(self.net.parameters()).device
        start = after % len(self._batches) if self._batches else 0
        return (_to(batch, device) for batch in [*self._batches[start:], *self._batches[:start]])

    def _run(self, batch: Any) -> Tensor:
        return self._loss(self.net, batch)


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: _to(item, device) for key, item in value.items()}
    return value
