"""Passes over a few training batches before training, for `Allocator.prepare`."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from rankopt.allocators.base import LayerPass
from rankopt.lowrank.layers import Layers
from rankopt.tasks.encode import Encoded
from rankopt.tasks.problems.base import Problem
from rankopt.training.device import autocast, random_module
from rankopt.training.model import Adapted
from rankopt.training.order import Order

Batch = dict[str, Tensor]


class TrainingProbe:
    """Hands out what the layers see in the first training batches; `allocators.base.Probe` documents the methods.

    Every pass runs in evaluation mode, so it draws no dropout masks.

    Args:
        net: the model.
        layers: its adapted layers.
        batches: returns the training batches, on the model's device, that follow a number of optimiser steps.
        loss: runs the net on a batch and returns its mean loss.
    Attributes:
        batches_read: the largest number of batches read at once.
        passes: forward passes and backward passes.
    Example:
        >>> from rankopt.lowrank.linear import LowRankLinear, Scale
        >>> class Net(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.fc = LowRankLinear(nn.Linear(3, 2), max_rank=1, scale=Scale("unit", 1.0))
        ...     def forward(self, x):
        ...         return self.fc(x)
        >>> net = Net()
        >>> batch = {"x": torch.ones(4, 3), "labels": torch.tensor([0, 1, 0, 1])}
        >>> def loss(batch):
        ...     return nn.functional.cross_entropy(net(batch["x"]), batch["labels"])
        >>> probe = TrainingProbe(net, {"fc": net.fc}, lambda after: [batch, batch], loss)
        >>> [tuple(inputs["fc"].shape) for inputs in probe.inputs(2)]
        [(4, 3), (4, 3)]
        >>> [tuple(seen["fc"].weight_gradient().shape) for seen in probe.gradients(1)]
        [(2, 3)]
        >>> probe.batches_read, probe.passes
        (2, 4)
    """

    def __init__(
        self, net: nn.Module, layers: Layers, batches: Callable[[int], Iterable[Batch]], loss: Callable[[Batch], Tensor]
    ) -> None:
        self.net, self.layers, self.batches, self.loss = net, layers, batches, loss
        self.batches_read = self.passes = 0

    def mean_loss(self, batches: int) -> float:
        losses = []
        for batch in self._first(batches):
            with self._evaluating(), torch.no_grad():
                losses.append(float(self.loss(batch)))
            self.passes += 1
        return fmean(losses)

    def inputs(self, batches: int) -> Iterator[dict[str, Tensor]]:
        for batch in self._first(batches):
            with self._recording() as (inputs, _), torch.no_grad():
                self.loss(batch)
            self.passes += 1
            yield {name: _rows(seen, batch) for name, seen in inputs.items()}

    def gradients(self, batches: int, after: int = 0) -> Iterator[dict[str, LayerPass]]:
        for batch in self._first(batches, after):
            with self._recording() as (inputs, outputs), torch.enable_grad():
                loss = self.loss(batch)
                flat = list(itertools.chain.from_iterable(outputs.values()))
                found = iter(torch.autograd.grad(loss, flat, allow_unused=True))
                slopes = {
                    name: [torch.zeros_like(y) if (dy := next(found)) is None else dy for y in ys]
                    for name, ys in outputs.items()
                }
            self.passes += 2
            yield {name: LayerPass(_rows(seen, batch), _rows(slopes[name], batch)) for name, seen in inputs.items()}

    def _first(self, count: int, after: int = 0) -> Iterator[Batch]:
        for number, batch in enumerate(itertools.islice(self.batches(after), count), 1):
            self.batches_read = max(self.batches_read, number)
            yield batch

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode; afterwards mode and random generators are as they were."""
        training = self.net.training
        with _same_random_numbers(self.net):
            self.net.eval()
            try:
                yield
            finally:
                self.net.train(training)

    @contextmanager
    def _recording(self) -> Iterator[tuple[dict[str, list[Tensor]], dict[str, list[Tensor]]]]:
        """Record the inputs and outputs of the layers' calls in evaluation mode."""
        inputs: dict[str, list[Tensor]] = defaultdict(list)
        outputs: dict[str, list[Tensor]] = defaultdict(list)

        def hook(name: str) -> Callable[..., Any]:
            def record(module: nn.Module, args: tuple[Tensor, ...], y: Tensor) -> Tensor:
                inputs[name].append(args[0].detach())
                if torch.is_grad_enabled():
                    if not y.requires_grad:  # nothing below this layer is trained
                        y = y + torch.zeros((), dtype=y.dtype, device=y.device, requires_grad=True)
                    outputs[name].append(y)
                return y

            return record

        with ExitStack() as stack:
            stack.enter_context(self._evaluating())
            for name, layer in self.layers.items():
                stack.callback(layer.register_forward_hook(hook(name)).remove)
            yield inputs, outputs


def task_loss(adapted: Adapted, problem: Problem, precision: str) -> Callable[[Batch], Tensor]:
    """The mean task loss of a batch, with "fp32" or "bf16" autocast, by a pass that joins no other trial's."""

    def loss(batch: Batch) -> Tensor:
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        labels, net = batch["labels"], adapted.net
        with autocast(labels.device.type, precision):
            logits = adapted.in_task_order(type(net).forward(net, **inputs).logits)
        return problem.loss(logits.float(), labels) / problem.items(labels)

    return loss


def training_batches(adapted: Adapted, problem: Problem, data: Encoded, order: Order, skip: int = 0) -> Iterator[Batch]:
    """A trial's micro-batches in its own order, one epoch after another, on the model's device.

    Args:
        skip: micro-batches to leave out.
    """
    first, skipped = divmod(skip, -(-len(order) // order.batch_size))
    for epoch in itertools.count(first):
        indices = order.indices(epoch)
        for start in range(skipped * order.batch_size if epoch == first else 0, len(indices), order.batch_size):
            items = [data[int(i)] for i in indices[start : start + order.batch_size]]
            batch = problem.collate(items, adapted.tokenizer, adapted.net.config)
            yield {key: value.to(adapted.device) for key, value in batch.items()}


@contextmanager
def _same_random_numbers(net: nn.Module) -> Iterator[None]:
    """Restore the random generators of the CPU and of the net's device."""
    modules = [random_module(kind) for kind in {"cpu", *(p.device.type for p in net.parameters())}]
    states = [module.get_rng_state() for module in modules]
    try:
        yield
    finally:
        for module, state in zip(modules, states, strict=True):
            module.set_rng_state(state)


def _rows(tensors: list[Tensor], batch: Batch) -> Tensor:
    """The rows of one or several calls, `(tokens, width)`, without padding where the call has the batch's tokens."""
    masks = [batch[name] for name in ("attention_mask", "decoder_attention_mask") if name in batch]
    rows = []
    for x in tensors:
        fitting = [mask.bool() for mask in masks if mask.shape == x.shape[:2]]
        # an encoder and a decoder may have equal widths: then a row counts if it is a token of either
        real = torch.stack(fitting).any(0) if fitting else None
        rows.append(x.detach().reshape(-1, x.shape[-1]) if real is None else x.detach()[real])
    return torch.cat(rows).float()
