"""What a trial adds to the allocator's hooks: records of losses and scores, progress, checkpoints, interruption."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rankopt.core.pattern import RankPattern
from rankopt.core.progress import Control, Progress
from rankopt.core.result import LossEvent, RankEvent
from rankopt.training.hooks import AllocatorHooks
from rankopt.training.order import Order
from rankopt.training.probe import TrainingProbe

EVENTS = 100
"""Approximate number of events that a trace keeps."""

SECONDS = 30.0
"""Seconds between checkpoints by default; writing one takes about a thousandth of that."""


class TrialCallback(TrainerCallback):
    """Records losses and scores, reports progress and asks for checkpoints; it follows the trial's `AllocatorCallback`.

    Args:
        hooks: the trial's; their ranks are part of the record.
        order: the order of examples; its epoch is set here, so that a resumed run sees the same examples.
        control: observes the trial, and stops it with a checkpoint.
        scored: steps after which `score` is called and reported.
        score: returns the values of a Progress of stage "score", given the allocated pattern.
        clock: the trial's clock.
    """

    def __init__(
        self,
        hooks: AllocatorHooks,
        order: Order,
        control: Control,
        scored: Collection[int] = (),
        score: Callable[[RankPattern], dict[str, float]] = lambda pattern: {},
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.hooks, self.order, self.control, self.stopped = hooks, order, control, False
        self.loss = self.gradient_norm = 0.0  # of the current step, filled by `TrialTrainer`
        self.sums = [0.0, 0.0, 0]  # loss, penalty and steps since the last loss event
        self.losses: list[dict[str, Any]] = []
        self.scored, self.score = scored, score
        self.scores: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.preparation: dict[str, float] = {}
        self.probe: TrainingProbe | None = None  # the allocator's, to count its passes
        self._counted = 0
        self.clock = clock
        self._since, self._saved = clock(), time.perf_counter()

    def records(self) -> dict[str, Any]:
        """The record so far, as a checkpoint stores it."""
        self._tick()
        return {
            "losses": self.losses, "ranks": self.hooks.ranks, "sums": self.sums, "seconds": self.seconds,
            "scores": self.scores, "preparation": self.preparation, "peak": self.hooks.peak,
        }  # fmt: skip

    def restore(self, records: dict[str, Any]) -> None:
        """Continue the record of an interrupted run."""
        self.losses, self.hooks.ranks = records["losses"], records["ranks"]
        self.sums, self.seconds, self.scores = records["sums"], records["seconds"], records.get("scores", [])
        self.preparation = records.get("preparation", {})
        self.hooks.peak = records.get("peak", {})

    def prepare(self, attaching: Mapping[str, float] = MappingProxyType({})) -> None:
        """Call the allocator's hook before training, and count its cost.

        Args:
            attaching: what a tuner that read data has cost already: seconds and batches.
        """
        assert self.probe is not None
        began = self.clock()
        self.hooks.prepare(self.probe)
        seconds = self.clock() - began + attaching.get("seconds", 0.0)
        self.preparation = {"seconds": seconds}
        self._count_passes()
        self.preparation["batches"] += int(attaching.get("batches", 0))
        self.seconds += seconds

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._since, self._saved = self.clock(), time.perf_counter()
        for event in self.scores:  # an interrupted run reports its earlier scores again
            self._report_score(state.max_steps, event)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._tick()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        batches = -(-len(self.order) // args.per_device_train_batch_size)
        self.order.epoch = state.global_step // -(-batches // args.gradient_accumulation_steps)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.loss = 0.0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        step, lr = state.global_step, float(kwargs["lr_scheduler"].get_last_lr()[0])
        self._count_passes()
        self.sums = [self.sums[0] + self.loss, self.sums[1] + self.hooks.last_penalty, self.sums[2] + 1]
        if step % max(1, state.max_steps // EVENTS) == 0 or step == state.max_steps:
            loss, penalty, count = self.sums
            means = {"step": step, "loss": loss / count, "penalty": penalty / count}
            self.losses.append({**means, "lr": lr, "gradient_norm": self.gradient_norm})
            self.sums = [0.0, 0.0, 0]
        self._report(step, state.max_steps, lr)
        if step in self.scored:
            self._tick()
            self.scores.append({"step": step, "values": self.score(self.hooks.allocated)})
            self._since = self.clock()  # evaluation does not count as training
            self._report_score(state.max_steps, self.scores[-1])
        if self.control.stop():
            self.stopped = control.should_training_stop = True
        # after the last step too: a trial interrupted while it is scored is not trained again
        required = step == state.max_steps or self.is_restart(step, state.max_steps)
        control.should_save = self.stopped or required or self._due(step)

    def _count_passes(self) -> None:
        if self.probe is not None:
            passes, batches = self.preparation.get("passes", 0), self.preparation.get("batches", 0)
            self.preparation["passes"] = passes + self.probe.passes - self._counted
            self.preparation["batches"] = max(batches, self.probe.batches_read)
            self._counted = self.probe.passes

    def is_restart(self, step: int, steps: int) -> bool:
        """Whether the learning rate schedule restarts after this step."""
        restart = self.hooks.allocator.restart(steps)
        return restart is not None and step == restart[0]

    def _due(self, step: int) -> bool:
        if self.control.checkpoint_steps:
            return step % self.control.checkpoint_steps == 0
        if time.perf_counter() - self._saved < SECONDS:
            return False
        self._saved = time.perf_counter()
        return True

    def trace(self) -> tuple[tuple[RankEvent, ...], tuple[LossEvent, ...]]:
        """The record, thinned to about `EVENTS` events including the first and the last."""
        events = self.hooks.ranks
        if len(events) > EVENTS:
            picks = {round(i * (len(events) - 1) / (EVENTS - 1)) for i in range(EVENTS)}
            events = [events[i] for i in sorted(picks)]
        return tuple(RankEvent(**event) for event in events), tuple(LossEvent(**event) for event in self.losses)

    def _report(self, step: int, steps: int, lr: float) -> None:
        last = self.hooks.ranks[-1]
        values = {
            "loss": self.loss, "penalty": self.hooks.last_penalty, "budget": float(last["amount"]), "lr": lr,
            "gradient_norm": self.gradient_norm,
        }  # fmt: skip
        ranks = dict(zip(self.hooks.layers, last["ranks"], strict=True))
        self.control.observe(Progress(step, steps, "train", values, ranks))

    def _report_score(self, steps: int, event: dict[str, Any]) -> None:
        self.control.observe(Progress(event["step"], steps, "score", event["values"]))

    def _tick(self) -> None:
        now = self.clock()
        self.seconds, self._since = self.seconds + now - self._since, now
