"""Joint training: several trials at once on one device, each `run_trial` in a thread of its own, with joint passes.

    trial 1:  batch -> forward .... loss, backward .... clip, AdamW, allocator, record, checkpoint
    trial 2:  batch -> forward .... loss, backward .... clip, AdamW, allocator, record, checkpoint
                            |                  |
                       one joint pass     one joint pass        over one frozen net (stacked_model.py)

Everything but the passes is the code that runs a trial alone. Trials may differ in everything but the model and its
target modules, and start, fail, stop and end independently. One thread runs at a time (scheduler.py).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any
from weakref import WeakValueDictionary

from rankopt.core.progress import Control, Progress
from rankopt.core.result import TrialResult
from rankopt.core.trial_spec import TrialSpec
from rankopt.training.base_weights import checkpoints_blocks
from rankopt.training.joint.joint_passes import backward, forward
from rankopt.training.joint.lane import Backward, JointLane
from rankopt.training.joint.scheduler import Scheduler, Thread
from rankopt.training.joint.stacked_model import Stack
from rankopt.training.model import Adapted
from rankopt.training.trial import run_trial


class JointTraining:
    """Joins the passes of the trials in its lanes.

    Args:
        log: called with one line when trials cannot share passes.
    """

    def __init__(self, log: Callable[[str], None] = lambda line: None) -> None:
        self.scheduler, self.log = Scheduler(self._serve), log
        self._stacks: WeakValueDictionary[Any, Stack] = WeakValueDictionary()  # kept alive by the lanes
        self._apart: set[str] = set()

    @contextmanager
    def lane(self, thread: Thread | None = None) -> Iterator[JointLane]:
        """A lane for one trial within this context, which starts with the thread's first turn.

        Args:
            thread: one that the scheduler has registered (default: a new one).
        """
        thread = thread or self.scheduler.register()
        with self.scheduler.run(thread):
            yield JointLane(self.scheduler, thread, self._stack_of)

    def _stack_of(self, adapted: Adapted) -> Stack:
        """The joint model for equal frozen weights, config, target modules and head; of other tuners one each."""
        if alone := _alone(adapted):
            if alone not in self._apart:
                self._apart.add(alone)
                self.log(f"trials {alone} run one after another: only gated layers over plain weights can be stacked")
            return Stack(None)
        net: Any = adapted.net
        config = {key: value for key, value in net.config.to_dict().items() if key not in ("id2label", "label2id")}
        key = (json.dumps(config, default=str), adapted.fingerprint, tuple(adapted.layers), adapted.head)
        stack = self._stacks.get(key) or Stack(adapted)
        self._stacks[key] = stack
        return stack

    def _serve(self, threads: list[Thread]) -> None:
        """Run the requested passes. Backward ones come first, so that all trials reach their next forward pass."""
        backwards = [thread for thread in threads if isinstance(thread.request, Backward)]
        groups: dict[Any, list[Thread]] = {}
        for thread in backwards or threads:
            lane, mode, _ = thread.request.forward if backwards else thread.request
            groups.setdefault((lane.stack, mode), []).append(thread)
        for group in groups.values():
            requests, began = [thread.request for thread in group], time.perf_counter()
            answers: Sequence[Any]
            try:
                answers = backward(requests, self.log) if backwards else forward(requests, self.log)
            except Exception as error:
                answers = [error] * len(group)
            share = (time.perf_counter() - began) / len(answers)
            for thread, answer in zip(group, answers, strict=False):  # the others keep waiting
                thread.request, thread.answer, thread.seconds = None, answer, thread.seconds + share


def _alone(adapted: Adapted) -> str | None:
    """What keeps a trial's passes from being joined with those of others."""
    if adapted.others:
        return f"with the tuner {next(iter(adapted.others))!r}"
    if any(layer.quantization for layer in adapted.layers.values()):
        return "with model.quantization"
    if checkpoints_blocks(adapted.model):  # a block computed again would draw other dropout masks
        return "with model.gradient_checkpointing"
    return None


def run_trials(
    specs: Sequence[TrialSpec],
    folders: Sequence[Path],
    *,
    observe: Callable[[int, Progress], None] = lambda index, progress: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint_steps: int | None = None,
    evaluations: int = 0,
    log: Callable[[str], None] = lambda line: None,
) -> list[TrialResult]:
    """Run trials together; each result equals that of `run_trial` up to rounding.

    Trials of one model and one set of target modules share their passes; other trials run one after another. A trial's
    result does not depend on the other trials, rounding excepted.

    Args:
        specs: one per trial.
        folders: one per trial.
        observe: called with the trial's index and its progress.
        stop: asked by every trial after each step.
        checkpoint_steps: as in `run_trial`, which can continue these checkpoints, and the other way round.
        evaluations: as in `run_trial`.
        log: called with one line when trials cannot share passes.
    Returns:
        The results, in the order of `specs`.
    Raises:
        ValueError, InterruptedTrialError, OSError: of the first trial that raised it, once all have ended.
    """
    joint, halted = JointTraining(log), Event()

    def run(index: int, thread: Thread) -> TrialResult:
        with joint.lane(thread) as lane:
            control = Control(partial(observe, index), lambda: halted.is_set() or stop(), checkpoint_steps, evaluations)
            return run_trial(specs[index], folders[index], control, lane)

    with ThreadPoolExecutor(max(1, len(specs))) as pool:
        # all are registered before the first runs, so that every run joins the same passes
        threads = [joint.scheduler.register() for _ in specs]
        futures = [pool.submit(run, index, thread) for index, thread in enumerate(threads)]
        try:
            return [future.result() for future in futures]
        except KeyboardInterrupt:
            halted.set()
            raise
