"""Several trials at once on one device: each is `run_trial` in a thread of its own, and their passes are joined.

    trial 1:  batch -> forward .... loss, backward .... clip, AdamW, allocator, record, checkpoint
    trial 2:  batch -> forward .... loss, backward .... clip, AdamW, allocator, record, checkpoint
                            |                  |
                       one joint pass     one joint pass        over one frozen net (`stack`)

All but the two passes through the model is the code that runs a trial alone: trials may differ in everything but the
model and where it is adapted, and begin, fail, stop and end when they like. One thread runs at a time (`turns`), with
the random generators of its trial.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from rankopt.core.result import Progress, TrialResult
from rankopt.core.spec import TrialSpec
from rankopt.training.joint.joint_passes import Backward, Forward, Mode, backward, forward
from rankopt.training.joint.stacked_model import Stack
from rankopt.training.joint.turns import Player, Turns
from rankopt.training.lane import Lane as TrialLane
from rankopt.training.model import Adapted
from rankopt.training.trial import run_trial


class Lane(TrialLane):
    """A trial's place among others: its net's forward passes go through here, and so does what is left of backward.

    Attributes:
        before: the states of its generators before its last forward pass.
    """

    before: dict[str, Tensor]

    def __init__(self, together: Together, player: Player) -> None:
        self.together, self.player = together, player
        self._pending: tuple[Forward, Tensor, Tensor] | None = None

    def take(self, adapted: Adapted) -> None:
        """Join the passes of a model, just loaded, with the others'."""
        self.adapted, self.alone = adapted, adapted.net.forward
        self.stack = self.together.stack(adapted)
        adapted.net.forward = partial(self.forward)  # no method, which accelerate would bind to the net

    def forward(self, **inputs: Tensor) -> SequenceClassifierOutput:
        """In place of the net's: logits that end the graph here; `backward` goes on from their gradient."""
        inputs.pop("num_items_in_batch", None)  # the Trainer's, for models that compute their loss
        kind = inputs["input_ids"].device.type
        autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        mode = Mode(self.adapted.net.training, torch.is_grad_enabled(), autocast)
        post = Forward(self, mode, inputs)
        logits: Tensor = self.together.turns.ask(self.player, post)
        if mode.gradients:
            leaf = logits.detach().requires_grad_()
            self._pending, logits = (post, logits, leaf), leaf
        return SequenceClassifierOutput(logits=logits)

    def clock(self) -> float:
        """Seconds of the trial's own thread and of its share of joint passes."""
        return self.player.clock()

    def draw(self) -> AbstractContextManager[None]:
        """Within it, random numbers come from the trial's own generator, although it is not its turn."""
        return self.player.globals.torch.draw(next(self.adapted.net.parameters()).device.type)

    def own(self, inputs: dict[str, Tensor]) -> Tensor:
        """The logits of the trial's own net."""
        with self.draw():
            logits: Tensor = self.alone(**inputs).logits
        return logits

    def backward(self) -> None:
        """Bring the gradient of the logits to the trial's parameters."""
        if self._pending is not None:
            (post, logits, leaf), self._pending = self._pending, None
            if leaf.grad is not None:
                back = Backward(post, [logits], leaf.grad)
                del logits  # what is held here outlives a pass that is given up
                self.together.turns.ask(self.player, back)

    def trained(self) -> list[nn.Parameter]:
        """The trial's parameters that receive gradient."""
        found = [p for layer in self.adapted.layers.values() for p in (layer.A, layer.B, layer.g)]
        for part in self.adapted.head:
            found += self.adapted.net.get_submodule(part).parameters()
        return [parameter for parameter in found if parameter.requires_grad]


class Together:
    """Joins the passes of the trials that are in its lanes.

    Args:
        say: told which model cannot be stacked, and why.
    """

    def __init__(self, say: Callable[[str], None] = lambda line: None) -> None:
        self.turns, self.say = Turns(self._work), say
        self._stacks: WeakValueDictionary[Any, Stack] = WeakValueDictionary()  # the lanes hold them

    @contextmanager
    def lane(self, player: Player | None = None) -> Iterator[Lane]:
        """A lane for one trial, within this context; waits for its turn first.

        Args:
            player: one that has joined the turns; a new one when absent.
        """
        player = player or self.turns.join()
        with self.turns.play(player):
            yield Lane(self, player)

    def stack(self, adapted: Adapted) -> Stack:
        """The stack that a model belongs to: equal frozen weights and config, adapted at the same places."""
        net: Any = adapted.net
        key = (net.config.to_json_string(), adapted.fingerprint, tuple(adapted.layers), adapted.head)
        stack = self._stacks.get(key) or Stack(adapted)
        self._stacks[key] = stack
        return stack

    def _work(self, players: list[Player]) -> None:
        """Do the posted passes: backward ones first, so that all trials are at a forward pass again, and join that."""
        backs = [player for player in players if isinstance(player.post, Backward)]
        groups: dict[Any, list[Player]] = {}
        for player in backs or players:
            lane, mode, _ = player.post.forward if backs else player.post
            groups.setdefault((lane.stack, mode), []).append(player)
        for group in groups.values():
            posts, began = [player.post for player in group], time.perf_counter()
            answers: Sequence[Any]
            try:
                answers = backward(posts) if backs else forward(posts)
            except Exception as error:
                answers = [error] * len(group)
            share = (time.perf_counter() - began) / len(answers)
            for player, answer in zip(group, answers, strict=False):  # what is not answered stays posted
                player.post, player.answer, player.seconds = None, answer, player.seconds + share


def run_trials(
    specs: Sequence[TrialSpec],
    folders: Sequence[Path],
    *,
    observe: Callable[[int, Progress], None] = lambda index, progress: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint_steps: int | None = None,
    evaluations: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> list[TrialResult]:
    """Run trials at once; each gives what `run_trial` gives, its numbers equal to rounding.

    Trials of one model and one set of target modules share their passes; any others take turns. On a trial's results
    its companions leave no trace but that rounding: not their order, lengths, ranks or failures.

    Args:
        specs: what to do.
        folders: of each trial, its own.
        observe: told the trial's place in `specs` and its progress.
        stop: asked by every trial after each of its steps.
        checkpoint_steps: as `run_trial`; a checkpoint of one serves the other.
        evaluations: as `run_trial`.
        say: told where trials take turns after all, and why.
    Returns:
        The results, in the order of `specs`.
    Raises:
        ValueError, InterruptedTrialError, OSError: of the first trial that raised it, once all have ended.
    """
    together, halted = Together(say), Event()

    def run(index: int, player: Player) -> TrialResult:
        with together.lane(player) as lane:
            return run_trial(
                specs[index], folders[index], observe=partial(observe, index), stop=lambda: halted.is_set() or stop(),
                checkpoint_steps=checkpoint_steps, evaluations=evaluations, lane=lane,
            )  # fmt: skip

    with ThreadPoolExecutor(max(1, len(specs))) as threads:
        # all of them before the first plays, for the same joint passes
        players = [together.turns.join() for _ in specs]
        futures = [threads.submit(run, index, player) for index, player in enumerate(players)]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            halted.set()
            raise
