"""The protocol of an allocator: which components every layer keeps, and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, ClassVar, NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.lowrank.layers import Layers, pattern_of
from rankopt.lowrank.scale import ScalePolicy

State = dict[str, Any]
"""Plain data (numbers, strings, lists, dicts, tensors), saved in every checkpoint.

Two keys reach the trial's result: "notes", a list of remarks for its reader, and "measured", a mapping name -> layer ->
amount of what the allocator measured.
"""


class Look(NamedTuple):
    """The trained model under a pattern, evaluated on the search split.

    Attributes:
        loss: mean loss.
        score: the task's first metric, negated where it is better when lower.
    """

    loss: float
    score: float


class Pass(NamedTuple):
    """An additional forward pass over the examples of a step.

    Attributes:
        pattern: the components that it keeps.
        taught: whether its target is the output of the step's first pass instead of the labels.
    """

    pattern: RankPattern
    taught: bool = False


class LayerPass(NamedTuple):
    """What one layer computed for one batch; rows are tokens, padding excluded.

    Attributes:
        inputs: `(tokens, in)`.
        gradients: `(tokens, out)`, of the batch's mean task loss with respect to the layer's outputs.
    """

    inputs: Tensor
    gradients: Tensor

    def weight_gradient(self) -> Tensor:
        """The gradient that the frozen weight would receive, dL/dW, `(out, in)`."""
        return self.gradients.T @ self.inputs


class Probe(Protocol):
    """Passes over training batches, in the trial's own order, through the model as it stands.

    No dropout is applied. Weights, gradients and random generators are unchanged. Every call starts with the first
    batch, or with the first one after `after` optimiser steps. A batch's tensors are computed when the iterator reaches
    it. `training/probe.py` implements it.
    """

    def mean_loss(self, batches: int) -> float:
        """The mean of the batches' mean losses under the layers' current masks, by forward passes."""

    def inputs(self, batches: int) -> Iterator[dict[str, Tensor]]:
        """For each batch, by forward passes: layer -> its inputs, `(tokens, in)`, padding excluded."""

    def gradients(self, batches: int, after: int = 0) -> Iterator[dict[str, LayerPass]]:
        """For each batch, by forward and backward passes: layer -> its inputs and output gradients."""


class Allocator(BaseModel, ABC):
    """Decides which components every layer keeps under a budget. Its fields are its hyper-parameters; it is frozen.

    A trial has exactly one allocator. It changes layers only by their masks (hard) and gates (soft), and keeps all its
    memory in the state that `start` returns. `training/callback.py` shows when each hook runs.

    Attributes:
        scale: the scale policy that the method was published with.
        scales: the policies under which a change of mask keeps the trained function.
        needs_budget: whether the trial must have a budget.
        decays_gates: whether `training.weight_decay` applies to trained gates.
        starts_as_base: whether the model computes the same as the base model before step 1.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    scale: ClassVar[ScalePolicy] = "init"
    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "active", "rs", "unit"})
    needs_budget: ClassVar[bool] = True
    decays_gates: ClassVar[bool] = False
    starts_as_base: ClassVar[bool] = True

    @classmethod
    def is_fixed(cls) -> bool:
        """Whether `start` decides the pattern: the allocator has no other hook."""
        return all(getattr(cls, hook) is getattr(Allocator, hook) for hook in HOOKS - {"start"})

    @classmethod
    def trains_super_network(cls) -> bool:
        """Whether `choose` returns further patterns of the trained model."""
        return cls.choose is not Allocator.choose

    def levels(self, top: int) -> tuple[float, ...]:
        """The uniform ranks below `top`, the trained one, at whose cost `choose` finds patterns."""
        return ()

    @abstractmethod
    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        """Initialise A, B, g and the masks.

        Args:
            layers: the adapted layers, all components masked.
            budget: upper limit on the cost of the final pattern.
            steps: optimiser steps of the trial, T.
            seed: the trial's.
        Returns:
            The state that every later hook is given.
        Raises:
            ValueError: the allocator cannot meet the budget; one line that says what to change.
        """

    def prepare(self, state: State, layers: Layers, probe: Probe) -> None:
        """After `start` and before step 1, once: look at a few training batches, and change layers and state.

        It must be deterministic and leave the global random generators alone; `start` decides whether gates are
        trained. A run that continues from a checkpoint does not call it again. Its seconds, batches and passes are
        counted in the trial's cost.

        Args:
            state: what `start` returned.
            layers: as `start` left them.
            probe: inputs and gradients of the layers on the first training batches.
        """

    def before_step(self, state: State, layers: Layers, step: int) -> None:
        """Run before the first forward pass of optimiser step `step` = 1..T."""

    def penalty(self, state: State, layers: Layers) -> Tensor | None:
        """A scalar added to the task loss, or None."""
        return None

    def passes(self, state: State, layers: Layers) -> list[Pass]:
        """Additional forward passes over the examples of this step; the loss is the mean over all passes."""
        return []

    def restart(self, steps: int) -> tuple[int, float] | None:
        """The step after which the learning rate schedule restarts, and its new peak as a share of the old one.

        The network after that step is the trial's own point and adapter. The other points are cut from the network at
        the end.
        """
        return None

    def after_step(self, state: State, layers: Layers, step: int) -> None:
        """Run after the optimiser step, before gradients are zeroed."""

    def review(self, state: State, layers: Layers, step: int, probe: Probe) -> None:
        """Run after `after_step`, for methods that look at training batches again while they train.

        A layer's masks may be changed around a pass of the probe. Its passes are counted in the trial's cost.
        """

    def allocated(self, state: State, layers: Layers) -> RankPattern:
        """The ranks that the method counts as kept now (default: the active ranks)."""
        return pattern_of(layers)

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        """Order the components so that a pattern keeps the first ones of every layer, and return patterns to score.

        Returns:
            The trial's own pattern, within budget, then any other patterns that the trained model can be cut to.
        """
        return (pattern_of(layers),)

    def choose(
        self, state: State, layers: Layers, look: Callable[[RankPattern], Look]
    ) -> dict[tuple[str, float], RankPattern]:
        """After `finish`: further patterns worth scoring, found on the search split alone.

        Args:
            look: scores the model cut to a pattern by forward passes.
        Returns:
            (how the pattern was found, the uniform rank whose cost it has) -> the pattern.
        """
        return {}


HOOKS = {name for name, value in vars(Allocator).items() if isinstance(value, FunctionType) and name[0] != "_"}
"""The names of the protocol's hooks."""
