"""Forward and backward passes of several trials, run as one.

When a joint pass fails, the trials' own passes decide: only an error of a trial's own pass fails that trial. Later
joint passes have half as many trials where memory ran out, and one where the model cannot be stacked.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from rankopt.core.errors import first_line
from rankopt.training.joint.lane import Backward, Forward
from rankopt.training.joint.stacked_modules import CannotStackError, Part

Log = Callable[[str], None]


def forward(requests: list[Forward], log: Log) -> list[Any]:
    """The logits of the first requests, or the exception that a trial's own pass raises.

    The answer may be shorter than the requests: no more than `Stack.most` graphs are in memory at once.

    Args:
        requests: of one stack and mode.
        log: called with one line when later joint passes will be smaller.
    """
    stack = requests[0].lane.stack
    with _mode(requests[0]):
        while True:
            group = requests[: stack.most]
            for request in group:
                request.lane.mark()
            try:
                return _joint(group) if len(group) > 1 else [group[0].lane.own(group[0].inputs)]
            except Exception as error:
                if len(group) == 1:
                    return [error]
                problem = error.with_traceback(None)  # its frames hold tensors
            _shrink(group, problem, log)


def backward(requests: list[Backward], log: Log) -> list[Any]:
    """Add to the gradients of every trial's parameters; answers None, or the exception of a trial's own passes.

    Args:
        requests: of one stack.
        log: as in `forward`.
    """
    with torch.autocast(requests[0].gradient.device.type, enabled=False):  # the thread may be inside a forward pass
        logits = [request.logits.pop() for request in requests]
        trained = list(itertools.chain.from_iterable(request.forward.lane.trained() for request in requests))
        gradients = [request.gradient for request in requests]
        try:  # no gradient is added before all of them are computed
            found = torch.autograd.grad(logits, trained, gradients, allow_unused=True)
        except Exception as error:
            if len(requests) == 1:
                return [error]
            problem = error.with_traceback(None)
        else:
            _add(trained, found)
            return [None] * len(requests)
    logits.clear()
    _shrink([request.forward for request in requests], problem, log)
    return [_repeat(request) for request in requests]


def _joint(requests: list[Forward]) -> list[Tensor]:
    """One pass for all. The first one of each kind is compared with the trials' own passes.

    Raises:
        CannotStackError: the model cannot be stacked.
        Exception: any error of the pass. The random generators are rewound in either case.
    """
    stack, mode = requests[0].lane.stack, requests[0].mode
    try:
        parts = [Part(request.lane.adapted, request.inputs, request.lane.drawing) for request in requests]
        logits = stack.forward(parts, mode.training)
        kind = mode.training, len({request.inputs["input_ids"].shape[1] for request in requests}) > 1
        if kind not in stack.checked:
            _compare(requests, logits)
            stack.checked.add(kind)
    except Exception:
        for request in requests:
            request.lane.rewind()
        raise
    return logits


def _compare(requests: list[Forward], logits: list[Tensor]) -> None:
    """Compare joint logits with those of the trials' own nets, on the same random numbers.

    Raises:
        CannotStackError: they differ by more than rounding.
    """
    for request in requests:
        request.lane.rewind()
    tolerance = 1e-4 if requests[0].mode.autocast is None else 5e-2
    with torch.no_grad():
        own = [request.lane.own(request.inputs) for request in requests]
    pairs = [(a, b) for a, b in zip(logits, own, strict=True) if b.isfinite().all()]  # others fail in their own trial
    if not all(torch.allclose(a.float(), b.float(), rtol=tolerance, atol=tolerance) for a, b in pairs):
        raise CannotStackError("its logits depend on what else is in the batch")


def _shrink(requests: list[Forward], problem: Exception, log: Log) -> None:
    """Lower the number of trials in later joint passes."""
    lane, count = requests[0].lane, len(requests)
    kind = type(lane.adapted.net).__name__
    if isinstance(problem, torch.OutOfMemoryError):
        lane.stack.most = count // 2
        gc.collect()
        if (device := lane.adapted.device.type) != "cpu":
            torch.get_device_module(device).empty_cache()
        log(f"joint passes of {count} trials of {kind} do not fit into memory: {count // 2} trials from now on")
    else:
        lane.stack.most = 1
        log(f"trials of {kind} run one after another: {first_line(problem)}")


def _repeat(request: Backward) -> Exception | None:
    """Repeat a trial's forward pass on its own, with the random numbers of the joint pass, and run backward."""
    lane = request.forward.lane
    now = lane.rewind()
    try:
        with _mode(request.forward):
            logits = lane.own(request.forward.inputs)
        trained = lane.trained()
        _add(trained, torch.autograd.grad(logits, trained, request.gradient, allow_unused=True))
    except Exception as error:
        return error
    finally:
        lane.advance(now)
    return None


def _mode(request: Forward) -> AbstractContextManager[Any]:
    """The gradient mode and autocast of a forward pass."""
    stack, device, autocast = ExitStack(), request.inputs["input_ids"].device.type, request.mode.autocast
    stack.enter_context(torch.set_grad_enabled(request.mode.gradients))
    stack.enter_context(torch.autocast(device, autocast or torch.bfloat16, enabled=autocast is not None))
    return stack


def _add(parameters: list[nn.Parameter], gradients: Sequence[Tensor | None]) -> None:
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            # a fused optimiser requires the parameter's memory layout
            parameter.grad = gradient.contiguous() if parameter.grad is None else parameter.grad.add_(gradient)
