"""What an allocator is: who keeps which components, and when."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Annotated, Any, ClassVar, NamedTuple, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.core.seeds import stream
from rankopt.lowrank.layers import Layers, pattern_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.lowrank.scale import ScalePolicy

State = dict[str, Any]
"""Plain data (numbers, strings, lists, dicts, tensors): it is saved with a checkpoint, restored and compared.

A list "notes" in it holds remarks that the trial's reader should see, and a mapping "measured" what the allocator
measured of every layer: name -> layer -> amount.
"""


class Look(NamedTuple):
    """What forward passes over the search split say of the trained model cut to a pattern.

    Attributes:
        loss: the mean loss.
        score: the task's first metric.
    """

    loss: float
    score: float


class Pass(NamedTuple):
    """One more forward pass over the examples of a step.

    Attributes:
        pattern: what it keeps of the layers.
        taught: whether it learns from the outputs of the step's first pass, and not from the labels.
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
    """Passes over the first training batches, in the trial's own order, through the model as it stands.

    No dropout is applied. Weights, gradients and random generators are unchanged. Every call starts with the first
    batch, and a batch's tensors are computed when the iterator reaches it. `training/probe.py` implements it.
    """

    def inputs(self, batches: int) -> Iterator[dict[str, Tensor]]:
        """For each batch, by forward passes: layer -> its inputs, `(tokens, in)`, padding excluded."""

    def gradients(self, batches: int) -> Iterator[dict[str, LayerPass]]:
        """For each batch, by forward and backward passes: layer -> its inputs and output gradients."""


Steps = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A fraction of the trial's steps when below 1, else a number of steps."""


def steps_of(value: float, total: int) -> int:
    """A number of steps from `Steps`.

    Example:
        >>> steps_of(0.25, 200), steps_of(30, 200)
        (50, 30)
    """
    return round(value * total) if value < 1 else int(value)


class Allocator(BaseModel, ABC):
    """Decides which components every layer may keep under a budget. Frozen: its fields are its hyper-parameters.

    One trial has exactly one allocator. It acts on the layers through the mask (hard) and the gate (soft) only, and
    everything it remembers is in the state that `start` returns. `training/callback.py` shows when each hook fires.

    Attributes:
        scale: the scale policy that the method was published with.
        scales: the policies under which the method keeps the function it trained.
        needs_budget: whether a trial must give one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    scale: ClassVar[ScalePolicy] = "init"
    scales: ClassVar[frozenset[ScalePolicy]] = frozenset({"init", "active", "rs", "unit"})
    needs_budget: ClassVar[bool] = True

    @classmethod
    def is_fixed(cls) -> bool:
        """Whether the pattern is settled before training: no hook after `start` changes anything."""
        return all(getattr(cls, hook) is getattr(Allocator, hook) for hook in HOOKS - {"start"})

    @classmethod
    def trains_super_network(cls) -> bool:
        """Whether it names further patterns of the trained model, see `choose`."""
        return cls.choose is not Allocator.choose

    @abstractmethod
    def start(self, layers: Layers, budget: Budget, steps: int, seed: int) -> State:
        """Initialise A, B, g and the masks.

        Args:
            layers: all components masked.
            budget: what the final pattern may cost.
            steps: optimiser steps of the whole trial, T.
            seed: the trial's.
        Returns:
            The state handed to every later hook.
        Raises:
            ValueError: when this allocator cannot meet the budget; one line that says what to change.
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
        """Before the first forward pass of optimiser step `step` = 1..T."""

    def penalty(self, state: State, layers: Layers) -> Tensor | None:
        """A scalar added to the task loss, or None."""
        return None

    def passes(self, state: State, layers: Layers) -> list[Pass]:
        """Forward passes over the examples of this step beside the one under the masks; the loss is the mean of all."""
        return []

    def restart(self, steps: int) -> tuple[int, float] | None:
        """After which step the schedule of the learning rate begins again, and at what share of its peak.

        The network as it is after that step is a whole training: it is the trial's own point and adapter, and the
        other points are cut from the network at the end.
        """
        return None

    def after_step(self, state: State, layers: Layers, step: int) -> None:
        """After the optimiser moved the weights, before gradients are zeroed."""

    def allocated(self, state: State, layers: Layers) -> RankPattern:
        """The ranks that the method counts as kept now; the active ranks unless it suppresses by the gate."""
        return pattern_of(layers)

    def finish(self, state: State, layers: Layers) -> tuple[RankPattern, ...]:
        """Order the components so that a pattern keeps the first ones of every layer, and say which patterns to score.

        Returns:
            The trial's own pattern first, within budget; then any others that the trained model can be cut to.
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


@torch.no_grad()
def init_lora(layer: LowRankLinear, name: str, seed: int) -> None:
    """LoRA's start: A Kaiming-uniform (a = sqrt 5, that is +-1/sqrt(in)), B zero, gate one.

    Every layer draws from a stream of its own, so component i starts the same under every allocator and budget.

    Source: Hu et al. 2021 (2106.09685), the authors' code.
    """
    bound = 1 / math.sqrt(layer.shape.fan_in)
    layer.A.copy_(torch.empty(layer.A.shape).uniform_(-bound, bound, generator=_generator(seed, name)))
    layer.B.zero_()
    layer.g.fill_(1.0)
    layer.g.requires_grad_(False)


@torch.no_grad()
def init_triplets(layer: LowRankLinear, name: str, seed: int) -> None:
    """AdaLoRA's start: A and B normal with standard deviation 0.02, gate zero and trained.

    Source: Zhang et al. 2023 (2303.10512), the authors' code.
    """
    generator = _generator(seed, name)
    layer.A.copy_(torch.empty(layer.A.shape).normal_(0.0, 0.02, generator=generator))
    layer.B.copy_(torch.empty(layer.B.shape).normal_(0.0, 0.02, generator=generator))
    layer.g.zero_()
    layer.g.requires_grad_(True)


def start_pattern(layers: Layers, pattern: RankPattern, seed: int) -> State:
    """Begin plain LoRA at a fixed pattern; the state is empty."""
    for name, layer in layers.items():
        init_lora(layer, name, seed)
        layer.open(pattern[name])
    return {}


def smallest_max_rank(layers: Layers) -> int:
    """The physical rank that every layer has."""
    return min(layer.max_rank for layer in layers.values())


def depth_of(name: str) -> int | None:
    """The block that a layer belongs to: the first number in its name, if there is one.

    Example:
        >>> depth_of("bert.encoder.layer.11.output.dense"), depth_of("head")
        (11, None)
    """
    number = re.search(r"(?:^|\.)(\d+)(?:\.|$)", name)
    return int(number[1]) if number else None


def _generator(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(stream(seed, "init", name))
