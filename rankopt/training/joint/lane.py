"""A trial's lane in joint training, and the passes that it requests."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from rankopt.lowrank.statistics import collects_statistics
from rankopt.training.joint.process_state import RandomStates
from rankopt.training.joint.scheduler import Scheduler, Thread
from rankopt.training.joint.stacked_model import Stack
from rankopt.training.lane import Lane
from rankopt.training.model import Adapted


class PassMode(NamedTuple):
    """What forward passes must have in common, besides the model, to be joined."""

    training: bool
    gradients: bool
    autocast: torch.dtype | None
    alone: int | None  # names the trial, where its layers collect statistics of their own passes


class Forward(NamedTuple):
    """A request for the logits of a batch."""

    lane: JointLane
    mode: PassMode
    inputs: dict[str, Tensor]


class Backward(NamedTuple):
    """A request to propagate the gradient of a forward pass's logits. Only `logits` refers to the pass's graph."""

    forward: Forward
    logits: list[Tensor]
    gradient: Tensor


class JointLane(Lane):
    """Requests a trial's forward and backward passes from the scheduler, which joins those of several trials.

    Args:
        scheduler: of all trials that train together.
        thread: the trial's.
        stack_of: finds the joint model that a trial's model belongs to.
    Attributes:
        adapted: the trial's model.
        stack: the joint model.
    """

    def __init__(self, scheduler: Scheduler, thread: Thread, stack_of: Callable[[Adapted], Stack]) -> None:
        self.scheduler, self.thread, self.stack_of = scheduler, thread, stack_of
        self._pending: tuple[Forward, Tensor, Tensor] | None = None
        self._before: dict[str, Tensor] = {}

    def take(self, adapted: Adapted) -> None:
        self.adapted, self._own_forward = adapted, adapted.net.forward
        self.stack = self.stack_of(adapted)
        adapted.net.forward = partial(self.forward)  # not a method, which accelerate would bind to the net

    def forward(self, **inputs: Tensor) -> SequenceClassifierOutput:
        """Replaces the net's forward pass. The logits it returns end autograd's graph; `backward` continues it."""
        inputs.pop("num_items_in_batch", None)  # the Trainer passes it to models that compute their loss
        device = inputs["input_ids"].device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        gradients = torch.is_grad_enabled()
        alone = id(self) if gradients and collects_statistics(self.adapted.layers) else None
        mode = PassMode(self.adapted.net.training, gradients, autocast, alone)
        request = Forward(self, mode, inputs)
        logits: Tensor = self.scheduler.ask(self.thread, request)
        if mode.gradients:
            leaf = logits.detach().requires_grad_()
            self._pending, logits = (request, logits, leaf), leaf
        return SequenceClassifierOutput(logits=logits)

    def backward(self) -> None:
        if self._pending is not None:
            (request, logits, leaf), self._pending = self._pending, None
            if leaf.grad is not None:
                backward = Backward(request, [logits], leaf.grad)
                del logits  # a reference here would keep the graph of a failed pass alive
                self.scheduler.ask(self.thread, backward)

    def clock(self) -> float:
        return self.thread.clock()

    def own(self, inputs: dict[str, Tensor]) -> Tensor:
        """The logits of the trial's own net."""
        with self.drawing():
            logits: Tensor = self._own_forward(**inputs).logits
        return logits

    def trained(self) -> list[nn.Parameter]:
        """The trial's parameters that receive gradients."""
        found = [p for layer in self.adapted.layers.values() for p in (layer.A, layer.B, layer.g)]
        for module in self.adapted.heads().values():
            found += module.parameters()
        for one in self.adapted.others.values():
            found += one.parameters.values()
        return [parameter for parameter in found if parameter.requires_grad]

    def drawing(self) -> AbstractContextManager[None]:
        """Within this context random numbers come from the trial's own generator, whichever thread runs."""
        return self._random.drawing(self.adapted.device.type)

    def mark(self) -> None:
        """Remember the states of the trial's generators before a forward pass."""
        self._before = dict(self._random.states)

    def rewind(self) -> dict[str, Tensor]:
        """Return to the marked states; returns those before this call."""
        now, self._random.states = self._random.states, dict(self._before)
        return now

    def advance(self, states: dict[str, Tensor]) -> None:
        """Set the trial's generators to states that `rewind` returned."""
        self._random.states = states

    def __deepcopy__(self, memo: dict[int, Any]) -> JointLane:
        """A copy of a model, such as the one an export is checked with, refers to the same lane."""
        return self

    @property
    def _random(self) -> RandomStates:
        return self.thread.process.torch
