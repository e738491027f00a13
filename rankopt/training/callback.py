"""When an allocator's hooks run. No other file knows the Trainer's events.

allocator.start(layers, budget, T, seed)            # in `trial.prepare`
allocator.prepare(layers, probe)                    # in `trial.train`, unless it continues from a checkpoint
for step in 1..T:
    allocator.before_step(step)                     # on_step_begin: before the first micro-batch
    for micro-batch in step:
        loss = task loss + allocator.penalty()      # `TrialTrainer.loss`; a non-finite loss fails the trial
        loss.backward()
    clip gradients                                  # the allocator sees clipped gradients
    optimizer.step()                                # non-finite weights fail the trial
    allocator.after_step(step)                      # on_optimizer_step: gradients are still present
    reset the moments of layers and components that were replaced
    lr_scheduler.step(); zero gradients
    record, report progress, maybe evaluate on the search split, maybe checkpoint      # on_step_end
allocator.finish()                                  # in `trial.score`
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rankopt.allocators.base import Allocator, State
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.core.result import LossEvent, Observer, Progress, RankEvent
from rankopt.lowrank.layers import Layers, pattern_of, shapes_of
from rankopt.lowrank.linear import LowRankLinear
from rankopt.training.order import Order
from rankopt.training.probe import TrainingProbe

EVENTS = 100
"""Approximate number of events that a trace keeps."""

SECONDS = 30.0
"""Seconds between checkpoints by default; writing one takes about a thousandth of that."""


class AllocatorCallback(TrainerCallback):
    """Calls the hooks of one allocator during one training, and records ranks, losses and scores.

    Args:
        allocator: the trial's.
        state: what `allocator.start` returned; replaced when a checkpoint is loaded.
        layers: the adapted layers.
        budget: the trial's, for the unit of the recorded amounts.
        order: the order of examples; its epoch is set here, so that a resumed run sees the same examples.
        observe: called after every step.
        stop: asked after every step; True writes a checkpoint and ends training.
        checkpoint_steps: steps between checkpoints (default: every `SECONDS`).
        scored: steps after which `score` is called and reported to `observe`.
        score: returns the values of a Progress of stage "score", given the allocated pattern.
        clock: the trial's clock.
    """

    def __init__(
        self,
        allocator: Allocator,
        state: State,
        layers: Layers,
        budget: Budget,
        order: Order,
        observe: Observer,
        stop: Callable[[], bool],
        checkpoint_steps: int | None,
        scored: Collection[int] = (),
        score: Callable[[RankPattern], dict[str, float]] = lambda pattern: {},
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.allocator, self.state, self.layers, self.budget = allocator, state, layers, budget
        self.order, self.observe, self.stop, self.checkpoint_steps = order, observe, stop, checkpoint_steps
        self.shapes = shapes_of(layers)
        self.stopped = False
        self.loss = self.penalty = 0.0  # of the current step, filled by `TrialTrainer.compute_loss`
        self.sums = [0.0, 0.0, 0]  # loss, penalty and steps since the last loss event
        self.losses: list[dict[str, Any]] = []
        self.ranks: list[dict[str, Any]] = []
        self.scored, self.score = scored, score
        self.scores: list[dict[str, Any]] = []
        self.seconds = 0.0
        self.preparation: dict[str, float] = {}
        self.peak: dict[str, int] = {}  # the active ranks with the most parameters so far
        self.clock = clock
        self._since, self._saved = clock(), time.perf_counter()

    def records(self) -> dict[str, Any]:
        """The record so far, as a checkpoint stores it."""
        self._tick()
        return {
            "losses": self.losses, "ranks": self.ranks, "sums": self.sums, "seconds": self.seconds,
            "scores": self.scores, "preparation": self.preparation, "peak": self.peak,
        }  # fmt: skip

    def restore(self, records: dict[str, Any]) -> None:
        """Continue the record of an interrupted run."""
        self.losses, self.ranks = records["losses"], records["ranks"]
        self.sums, self.seconds, self.scores = records["sums"], records["seconds"], records.get("scores", [])
        self.preparation = records.get("preparation", {})
        self.peak = records.get("peak", {})

    def prepare(self, probe: TrainingProbe) -> None:
        """Call the allocator's hook before training, and count its cost."""
        began = self.clock()
        self.allocator.prepare(self.state, self.layers, probe)
        for layer in self.layers.values():
            layer.changed, layer.renewed = False, []  # there are no moments yet
        seconds = self.clock() - began
        self.preparation = {"seconds": seconds, "batches": probe.batches_read, "passes": probe.passes}
        self.seconds += seconds

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._since, self._saved = self.clock(), time.perf_counter()
        if state.global_step == 0:
            self._record_ranks(0)
        for event in self.scores:  # an interrupted run reports its earlier scores again
            self._report_score(state.max_steps, event)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._tick()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        batches = -(-len(self.order) // args.per_device_train_batch_size)
        self.order.epoch = state.global_step // -(-batches // args.gradient_accumulation_steps)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.loss = self.penalty = 0.0
        # the Trainer increments `global_step` after the optimiser's step
        self.allocator.before_step(self.state, self.layers, state.global_step + 1)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        step = state.global_step + 1
        trained = [p for group in kwargs["optimizer"].param_groups for p in group["params"]]
        if not torch.isfinite(nn.utils.get_total_norm([p.detach() for p in trained], norm_type=float("inf"))):
            raise FloatingPointError(f"the weights are no longer finite at step {step} of {state.max_steps}")
        self.allocator.after_step(self.state, self.layers, step)
        for layer in self.layers.values():
            reset_moments(kwargs["optimizer"], layer)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        step = state.global_step
        self._record_ranks(step)
        self.sums = [self.sums[0] + self.loss, self.sums[1] + self.penalty, self.sums[2] + 1]
        if step % max(1, state.max_steps // EVENTS) == 0 or step == state.max_steps:
            loss, penalty, count = self.sums
            lr = float(kwargs["lr_scheduler"].get_last_lr()[0])
            self.losses.append({"step": step, "loss": loss / count, "penalty": penalty / count, "lr": lr})
            self.sums = [0.0, 0.0, 0]
        self._report(step, state.max_steps)
        if step in self.scored:
            self._tick()
            self.scores.append({"step": step, "values": self.score(self.allocator.allocated(self.state, self.layers))})
            self._since = self.clock()  # evaluation does not count as training
            self._report_score(state.max_steps, self.scores[-1])
        if self.stop():
            self.stopped = control.should_training_stop = True
        # after the last step too: a trial interrupted while it is scored is not trained again
        required = step == state.max_steps or self.is_restart(step, state.max_steps)
        control.should_save = self.stopped or required or self._due(step)

    def is_restart(self, step: int, steps: int) -> bool:
        """Whether the learning rate schedule restarts after this step."""
        restart = self.allocator.restart(steps)
        return restart is not None and step == restart[0]

    def _due(self, step: int) -> bool:
        if self.checkpoint_steps:
            return step % self.checkpoint_steps == 0
        if time.perf_counter() - self._saved < SECONDS:
            return False
        self._saved = time.perf_counter()
        return True

    def trace(self) -> tuple[tuple[RankEvent, ...], tuple[LossEvent, ...]]:
        """The record, thinned to about `EVENTS` events including the first and the last."""
        events = self.ranks
        if len(events) > EVENTS:
            picks = {round(i * (len(events) - 1) / (EVENTS - 1)) for i in range(EVENTS)}
            events = [events[i] for i in sorted(picks)]
        return tuple(RankEvent(**event) for event in events), tuple(LossEvent(**event) for event in self.losses)

    def _record_ranks(self, step: int) -> None:
        active = pattern_of(self.layers)
        if not self.peak or active.parameters(self.shapes) > RankPattern(self.peak).parameters(self.shapes):
            self.peak = dict(active)
        pattern = self.allocator.allocated(self.state, self.layers)
        ranks = tuple(pattern[name] for name in self.layers)
        if not self.ranks or tuple(self.ranks[-1]["ranks"]) != ranks:
            self.ranks.append({"step": step, "amount": self.budget.spent(pattern, self.shapes), "ranks": ranks})

    def _report(self, step: int, steps: int) -> None:
        last = self.ranks[-1]
        values = {"loss": self.loss, "penalty": self.penalty, "budget": float(last["amount"])}
        self.observe(Progress(step, steps, "train", values, dict(zip(self.layers, last["ranks"], strict=True))))

    def _report_score(self, steps: int, event: dict[str, Any]) -> None:
        self.observe(Progress(event["step"], steps, "score", event["values"]))

    def _tick(self) -> None:
        now = self.clock()
        self.seconds, self._since = self.seconds + now - self._since, now


def reset_moments(optimizer: torch.optim.Optimizer, layer: LowRankLinear) -> None:
    """Reset the moments of what was replaced in a layer since the optimiser's last step."""
    if layer.changed:
        zero_moments(optimizer, [layer.A, layer.B, layer.g])
    elif layer.renewed:
        for parameter, dim in ((layer.A, 0), (layer.B, 1), (layer.g, 0)):
            renew_moments(optimizer, parameter, dim, layer.m, layer.renewed)
    layer.changed, layer.renewed = False, []


@torch.no_grad()
def renew_moments(
    optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, dim: int, active: torch.Tensor, renewed: list[int]
) -> None:
    """Start new components with a first moment of zero and the mean second moment of the other active ones, if any.

    A second moment of zero at a late step, which Adam no longer corrects, would make their first steps several times
    too large.

    Args:
        dim: the dimension that counts components.
        active: the mask `(R,)`.
        renewed: the new components.
    """
    moments = optimizer.state.get(parameter, {})
    if "exp_avg_sq" in moments:
        index = torch.tensor(renewed, device=parameter.device)
        others = active.index_fill(0, index, False)
        others = others if others.any() else active if active.any() else torch.ones_like(active)
        mean = moments["exp_avg_sq"].index_select(dim, others.nonzero().squeeze(1)).mean(dim, keepdim=True)
        moments["exp_avg"].index_fill_(dim, index, 0.0)
        moments["exp_avg_sq"].index_copy_(dim, index, mean.repeat_interleave(len(renewed), dim))


def zero_moments(optimizer: torch.optim.Optimizer, parameters: list[torch.nn.Parameter]) -> None:
    """Zero Adam's moments of some parameters. Their step counts, which decide the bias correction, stay."""
    for parameter in parameters:
        for key in ("exp_avg", "exp_avg_sq"):
            moment = optimizer.state.get(parameter, {}).get(key)
            if moment is not None:
                moment.zero_()
