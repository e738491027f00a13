"""The passes through the model that trials ask for, done at once: forward, and backward.

A pass that fails for all is done for each: where memory ran out, the next ones are of half as many trials; where the
model does something that cannot be told apart by trials, of one. So only what a trial's own pass raises is its fault.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from rankopt.core.problems import first_line
from rankopt.training.joint.stacked_model import CannotStackError, Part

if TYPE_CHECKING:
    from rankopt.training.joint.together import Lane


class Mode(NamedTuple):
    """What must agree for passes to be joined, besides the model."""

    training: bool
    gradients: bool
    autocast: torch.dtype | None


class Forward(NamedTuple):
    """A batch that a trial wants the logits of."""

    lane: Lane
    mode: Mode
    inputs: dict[str, Tensor]


class Backward(NamedTuple):
    """The gradient of the logits of a forward pass, whose graph is held here alone."""

    forward: Forward
    logits: list[Tensor]
    slope: Tensor


def forward(posts: list[Forward]) -> list[Any]:
    """The logits of the first trials of these, or the exception that a trial's own pass raises.

    No more than a pass may have: the graphs of the others would lie in memory beside theirs.

    Args:
        posts: of one stack and mode.
    """
    stack = posts[0].lane.stack
    with _under(posts[0]):
        while True:
            group = posts[: stack.most]
            for post in group:
                post.lane.before = dict(post.lane.player.globals.torch.states)
            try:
                return _joint(group) if len(group) > 1 else [group[0].lane.own(group[0].inputs)]
            except Exception as error:
                if len(group) == 1:
                    return [error]
                problem = error.with_traceback(None)  # its frames hold tensors
            _give_up(group, problem)


def backward(posts: list[Backward]) -> list[Any]:
    """Add to the gradients of every trial's parameters; None, or the exception that a trial's own passes raise.

    Args:
        posts: of one stack.
    """
    with torch.autocast(posts[0].slope.device.type, enabled=False):  # the thread may be inside a forward pass
        logits = [post.logits.pop() for post in posts]
        trained = list(itertools.chain.from_iterable(post.forward.lane.trained() for post in posts))
        try:  # nothing is added before all of it is there
            slopes = torch.autograd.grad(logits, trained, [post.slope for post in posts], allow_unused=True)
        except Exception as error:
            if len(posts) == 1:
                return [error]
            problem = error.with_traceback(None)
        else:
            _add(trained, slopes)
            return [None] * len(posts)
    logits.clear()
    _give_up([post.forward for post in posts], problem)
    return [_again(post) for post in posts]


def _joint(posts: list[Forward]) -> list[Tensor]:
    """One pass for all. The first one of a kind is compared with the trials' own.

    Raises:
        CannotStackError: the model cannot be stacked.
        Exception: whatever the pass raises; in any case the generators are as they were.
    """
    stack, mode = posts[0].lane.stack, posts[0].mode

    def rewind() -> None:
        for post in posts:
            post.lane.player.globals.torch.states = dict(post.lane.before)

    try:
        logits = stack.forward([Part(post.lane.adapted, post.inputs, post.lane.draw) for post in posts], mode.training)
        kind = mode.training, len({post.inputs["input_ids"].shape[1] for post in posts}) > 1
        if kind not in stack.checked:
            rewind()
            error = 1e-4 if mode.autocast is None else 5e-2
            with torch.no_grad():
                own = [post.lane.own(post.inputs) for post in posts]
            # not finite is a trial's own affair
            pairs = [(a, b) for a, b in zip(logits, own, strict=True) if b.isfinite().all()]
            if not all(torch.allclose(a.float(), b.float(), rtol=error, atol=error) for a, b in pairs):
                raise CannotStackError("its logits depend on what else is in the batch")
            stack.checked.add(kind)
    except Exception:
        rewind()
        raise
    return logits


def _give_up(posts: list[Forward], problem: Exception) -> None:
    """Have no joint pass of so many trials again."""
    lane, count = posts[0].lane, len(posts)
    kind = type(lane.adapted.net).__name__
    if isinstance(problem, torch.OutOfMemoryError):
        lane.stack.most = count // 2
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        text = f"passes of {count} trials of {kind} do not fit into memory; of {count // 2} from now on"
    else:
        lane.stack.most = 1
        text = f"trials of {kind} take turns, each in passes of its own: {first_line(problem)}"
    lane.together.say(text)


def _again(post: Backward) -> Exception | None:
    """A trial's own forward pass, with the random numbers of the joint one, and backward through that."""
    lane, player = post.forward.lane, post.forward.lane.player
    now, player.globals.torch.states = player.globals.torch.states, dict(lane.before)
    try:
        with _under(post.forward):
            logits = lane.own(post.forward.inputs)
        trained = lane.trained()
        _add(trained, torch.autograd.grad(logits, trained, post.slope, allow_unused=True))
    except Exception as error:
        return error
    finally:
        player.globals.torch.states = now
    return None


def _under(post: Forward) -> AbstractContextManager[Any]:
    """The gradient mode and autocast that a forward pass was asked for under."""
    stack, kind, autocast = ExitStack(), post.inputs["input_ids"].device.type, post.mode.autocast
    stack.enter_context(torch.set_grad_enabled(post.mode.gradients))
    stack.enter_context(torch.autocast(kind, autocast or torch.bfloat16, enabled=autocast is not None))
    return stack


def _add(parameters: list[nn.Parameter], slopes: Sequence[Tensor | None]) -> None:
    for parameter, slope in zip(parameters, slopes, strict=True):
        if slope is not None:
            # laid out as the parameter, which a fused optimiser takes for granted
            parameter.grad = slope.contiguous() if parameter.grad is None else parameter.grad.add_(slope)
