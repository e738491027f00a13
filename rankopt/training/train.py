"""The second step of a trial: its training, from the newest checkpoint or from the start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from rankopt.allocators.base import State
from rankopt.core.pattern import RankPattern
from rankopt.core.progress import Control
from rankopt.core.result import LossEvent, RankEvent
from rankopt.training.checkpoint import latest, step_of
from rankopt.training.evaluate import predict
from rankopt.training.hooks import AllocatorHooks
from rankopt.training.measure import Memory, peak_memory
from rankopt.training.order import steps_to_batches
from rankopt.training.prepare import Prepared
from rankopt.training.probe import TrainingProbe, task_loss, training_batches
from rankopt.training.trainer import TrialTrainer
from rankopt.training.trial_callback import TrialCallback


class InterruptedTrialError(Exception):
    """The trial was asked to stop. Its last step is in a checkpoint, and running it again continues from there."""


@dataclass(frozen=True)
class Trained:
    """What training adds to a prepared trial, whose model it changes.

    Attributes:
        state: the allocator's state after the last step.
        peak: the largest pattern, in parameters, that was active.
        ranks: the active ranks over time.
        losses: the training loss over time.
        seconds: wall seconds, evaluations excluded.
        preparation: what `Allocator.prepare` cost, as "seconds" of these, "batches" and "passes".
        memory: the peak during training, or since it was resumed.
    """

    state: State
    peak: RankPattern
    ranks: tuple[RankEvent, ...]
    losses: tuple[LossEvent, ...]
    seconds: float
    preparation: dict[str, float]
    memory: Memory


def train(prepared: Prepared, folder: Path, control: Control = Control()) -> Trained:
    """Train from the newest checkpoint in `folder/checkpoints`, or from the start. Arguments as `run_trial`.

    Raises:
        NonFiniteLossError, FloatingPointError: the loss or a weight is not finite.
        InterruptedTrialError, OSError: as `run_trial`.
    """
    if not prepared.steps:
        return Trained(prepared.state, RankPattern({}), (), (), 0.0, {}, Memory())
    trainer = build_trainer(prepared, folder, control)
    checkpoint, memory = latest(trainer.folder), Memory()
    if checkpoint and step_of(checkpoint) == prepared.steps:
        trainer.load(checkpoint)  # the trial was interrupted while it was scored
    else:
        trainer.events.probe = trainer.events.hooks.probe = _probe(prepared)
        if checkpoint is None:
            trainer.events.prepare(prepared.adapted.preparation)
        with peak_memory() as memory:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    events = trainer.events
    if events.stopped:
        raise InterruptedTrialError
    ranks, losses = events.trace()
    return Trained(
        events.hooks.state,
        RankPattern(events.hooks.peak),
        ranks,
        losses,
        events.seconds,
        events.preparation,
        memory,
    )


def build_trainer(prepared: Prepared, folder: Path, control: Control = Control()) -> TrialTrainer:
    """The Trainer that `train` runs. Arguments as `run_trial`."""
    steps, lane, count = prepared.steps, prepared.lane, control.evaluations
    evaluated = {round(steps * number / (count + 1)) for number in range(1, count + 1)} - {0, steps}
    hooks = AllocatorHooks(
        prepared.allocator, prepared.state, prepared.adapted.layers, prepared.budget,
        tuple(prepared.adapted.others.values()),
    )  # fmt: skip
    callback = TrialCallback(
        hooks, prepared.order, control, scored=evaluated, score=partial(_interim, prepared), clock=lane.clock
    )
    return TrialTrainer(
        prepared.adapted, prepared.task.problem, prepared.data.train, prepared.spec.training, steps,
        prepared.spec.seed, folder / "checkpoints", callback, lane.backward,
    )  # fmt: skip


def calibrated(prepared: Prepared) -> RankPattern:
    """The ranks that an allocator chooses before the first step, from a few training batches; nothing is trained."""
    prepared.allocator.prepare(prepared.state, prepared.adapted.layers, _probe(prepared))
    return prepared.allocator.allocated(prepared.state, prepared.adapted.layers)


def _probe(prepared: Prepared) -> TrainingProbe:
    adapted, problem, training = prepared.adapted, prepared.task.problem, prepared.spec.training
    order = prepared.order

    def batches(after: int) -> Iterator[dict[str, Tensor]]:
        skip = steps_to_batches(after, training.accumulation, -(-len(order) // order.batch_size))
        return training_batches(adapted, problem, prepared.data.train, order, skip)

    return TrainingProbe(adapted.net, adapted.layers, batches, task_loss(adapted, problem, training.precision))


def _interim(prepared: Prepared, pattern: RankPattern) -> dict[str, float]:
    """The score on the search split during training, the parameters kept, and the score's largest standard error."""
    how, task, split = prepared.spec.training, prepared.task, prepared.data.held_out["search"]
    answers = predict(prepared.adapted, task, split, how.eval_batch_size, how.precision, metrics=task.metrics[:1])
    score = task.problem.scores(task.metrics[:1], answers, split.labels)[task.metrics[0]]
    parameters = prepared.adapted.stored(pattern)
    error = task.problem.standard_error(task.metrics[0], answers)
    return {"score": score, "parameters": parameters, "error": error}
