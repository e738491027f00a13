"""One trial in three steps: prepare, train, score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankopt.allocators.base import Allocator, State
from rankopt.allocators.build import absolute_budget, build_allocator, scale_policy
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.core.result import (
    Cost,
    LossEvent,
    Observer,
    Parameters,
    Point,
    Progress,
    RankEvent,
    TrialResult,
)
from rankopt.core.trial_spec import TrialSpec
from rankopt.lowrank.layers import apply_pattern, shapes_of
from rankopt.tasks import task_of
from rankopt.tasks.base import Task
from rankopt.tasks.problems.base import Answers
from rankopt.training.checkpoint import latest, load_network, step_of
from rankopt.training.data import Data, load_data
from rankopt.training.environment import environment
from rankopt.training.evaluate import Looks, predict
from rankopt.training.hooks import AllocatorHooks
from rankopt.training.lane import Lane
from rankopt.training.measure import Memory, peak_memory, speed, stored_bytes
from rankopt.training.model import Adapted, load_adapted
from rankopt.training.order import Order, total_steps
from rankopt.training.pretrained import load_tokenizer
from rankopt.training.probe import TrainingProbe, task_loss, training_batches
from rankopt.training.trainer import NonFiniteLossError, TrialTrainer
from rankopt.training.trial_callback import TrialCallback
from rankopt.tuners.build import build_tuners
from rankopt.tuners.saved import PEFT_CONFIG, save_all


class InterruptedTrialError(Exception):
    """The trial was asked to stop. Its last step is in a checkpoint, and running it again continues from there."""


@dataclass(frozen=True)
class Prepared:
    """A trial before its first step.

    Attributes:
        spec: what to do.
        allocator: who decides the ranks.
        task: the task's columns, labels and metrics.
        adapted: the model with its adapters, as the allocator started them.
        data: the tokenised splits.
        budget: the absolute budget.
        steps: optimiser steps.
        order: the order of the training examples.
        state: the allocator's state.
        lane: how the trial runs its passes.
    """

    spec: TrialSpec
    allocator: Allocator
    task: Task
    adapted: Adapted
    data: Data
    budget: Budget
    steps: int
    order: Order
    state: State
    lane: Lane


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


def run_trial(
    spec: TrialSpec,
    folder: Path,
    *,
    observe: Observer = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint_steps: int | None = None,
    evaluations: int = 0,
    lane: Lane | None = None,
    device: str = "auto",
) -> TrialResult:
    """Train one model under one allocator, and score it at every final pattern.

    Args:
        spec: what to do.
        folder: the trial's own folder. Checkpoints are read from and written to `folder/checkpoints`; `score` says
            what else is written.
        observe: called after every step and every scored pattern.
        stop: asked after every step and every evaluated batch.
        checkpoint_steps: steps between checkpoints (default: every 30 s).
        evaluations: number of evaluations on the search split during training, evenly spaced, the end excluded. They
            are reported to `observe` and change nothing else.
        lane: how the trial runs its passes (default: alone).
        device: "cuda", "mps", "cpu", or "auto" for the first of these that torch can use.
    Returns:
        A complete result, or a failed one when the loss, the weights or the outputs are no longer finite.
    Raises:
        ValueError: a wrong spec, data or model; one line that says what to do.
        InterruptedTrialError: `stop` returned True.
        OSError: nothing can be written, or the checkpoint to continue from is corrupt.
    """
    prepared = prepare(spec, lane, device)
    try:
        trained = train(
            prepared, folder, observe=observe, stop=stop, checkpoint_steps=checkpoint_steps, evaluations=evaluations
        )
        return score(prepared, trained, folder, observe=observe, stop=stop)
    except (NonFiniteLossError, FloatingPointError) as error:
        return _result(prepared, status="failed", reason=str(error))


def prepare(spec: TrialSpec, lane: Lane | None = None, device: str = "auto") -> Prepared:
    """Load model and data, and let the allocator initialise the adapters.

    Raises:
        ValueError: a wrong spec, data or model; one line that says what to do.
    """
    allocator, task, how = build_allocator(spec), task_of(spec.task), spec.training
    lane = lane or Lane()
    data = load_data(spec.task, load_tokenizer(spec.model.name, spec.model.revision))
    steps = total_steps(how.epochs, how.steps, len(data.train), how.batch_size, how.accumulation)
    order = Order(data.train.lengths, how.batch_size, spec.seed, how.group_by_length)
    adapted = load_adapted(
        spec.model, scale_policy(spec, allocator), task, spec.seed, device, build_tuners(spec), steps,
        lambda model: islice(
            training_batches(model, task.problem, data.train, order), -(-len(order) // how.batch_size)
        ),
    )  # fmt: skip
    lane.take(adapted)
    budget = absolute_budget(spec, adapted.layers)
    state = allocator.start(adapted.layers, budget, steps, spec.seed)
    return Prepared(spec, allocator, task, adapted, data, budget, steps, order, state, lane)


def train(
    prepared: Prepared,
    folder: Path,
    *,
    observe: Observer = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint_steps: int | None = None,
    evaluations: int = 0,
) -> Trained:
    """Train from the newest checkpoint in `folder/checkpoints`, or from the start. Arguments as `run_trial`.

    Raises:
        NonFiniteLossError, FloatingPointError: the loss or a weight is not finite.
        InterruptedTrialError, OSError: as `run_trial`.
    """
    trainer = build_trainer(
        prepared, folder, observe=observe, stop=stop, checkpoint_steps=checkpoint_steps, evaluations=evaluations
    )
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


def build_trainer(
    prepared: Prepared,
    folder: Path,
    *,
    observe: Observer = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint_steps: int | None = None,
    evaluations: int = 0,
) -> TrialTrainer:
    """The Trainer that `train` runs. Arguments as `run_trial`."""
    steps, lane = prepared.steps, prepared.lane
    evaluated = {round(steps * number / (evaluations + 1)) for number in range(1, evaluations + 1)} - {0, steps}
    hooks = AllocatorHooks(
        prepared.allocator, prepared.state, prepared.adapted.layers, prepared.budget,
        tuple(prepared.adapted.others.values()),
    )  # fmt: skip
    callback = TrialCallback(
        hooks, prepared.order, observe, stop, checkpoint_steps,
        scored=evaluated, score=partial(_interim, prepared), clock=lane.clock,
    )  # fmt: skip
    return TrialTrainer(
        prepared.adapted, prepared.task.problem, prepared.data.train, prepared.spec.training, steps,
        prepared.spec.seed, folder / "checkpoints", callback, lane.backward,
    )  # fmt: skip


def score(
    prepared: Prepared,
    trained: Trained,
    folder: Path,
    *,
    observe: Observer = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> TrialResult:
    """Score the trained model at every final pattern, and write what the trial leaves.

    Written to `folder`: `adapter`, what the tuners save, for LoRA a PEFT adapter of the trial's own pattern;
    `predictions.npz`, logits and labels of every example, point and split; and, where the allocator restarts the
    schedule, `recovered`, the adapter at the end of training, from which all other points are cut.

    Args:
        prepared: the trial.
        trained: what `train` returned.
        folder: the one that was given to `train`.
        observe: called after every scored pattern.
        stop: asked after every evaluated batch.
    Raises:
        FloatingPointError: an output is not finite.
        InterruptedTrialError, OSError: as `run_trial`.
    """
    allocator, layers, how = prepared.allocator, prepared.adapted.layers, prepared.spec.training
    clock, check = prepared.lane.clock, _interrupt_if(stop)
    began = clock()
    looks = Looks(
        prepared.adapted, prepared.data.held_out["search"], prepared.task, how.eval_batch_size, how.precision, check,
        observe, clock,
    )  # fmt: skip
    own, *others = allocator.finish(trained.state, layers)
    cuts = {f"mean rank {pattern.mean:.4g}": pattern for pattern in others}
    chosen = allocator.choose(trained.state, layers, looks)
    origins = {f"{source} {level:g}": {"source": source, "level": level} for source, level in chosen}
    cuts |= dict(zip(origins, chosen.values(), strict=True))
    restarted = allocator.restart(prepared.steps) is not None
    points: list[Point] = []
    predictions = {f"labels/{name}": _plain(split.labels) for name, split in prepared.data.held_out.items()}
    for label, pattern in [*cuts.items(), ("budget", own)]:
        if label == "budget" and restarted:  # the trial's own point is the network before the restart
            _export(prepared, own, folder / "recovered")
            before = load_network(prepared.adapted, folder / "checkpoints")
            prepared.adapted.restore_tuners(before.get("tuners", {}))
        answers = _answers(prepared, pattern, check)
        predictions |= {f"{key}/{label}/{split}": v for split, fields in answers.items() for key, v in fields.items()}
        adapter = "recovered" if restarted and label != "budget" else "adapter"
        point = _point(prepared, label, pattern, answers, adapter)
        points.append(point.model_copy(update=origins.get(label, {})))
        value = points[-1].search[prepared.task.metrics[0]]
        observe(Progress(len(points), len(cuts) + 1, "evaluate", {"score": value}))
    _export(prepared, own, folder / "adapter")
    np.savez_compressed(folder / "predictions.npz", **predictions)  # type: ignore[arg-type]
    tokens, padded = prepared.order.count(prepared.steps, how.accumulation)
    evaluated = clock() - began
    timed = _speed(prepared)
    return _result(
        prepared,
        status="complete",
        points=(points[-1], *points[:-1]),
        ranks=trained.ranks,
        losses=trained.losses,
        looks=tuple(looks.seen),
        measured=trained.state.get("measured", {}),
        notes=(*prepared.adapted.notes, *prepared.data.notes, *trained.state.get("notes", ())),
        parameters=_parameters(prepared, trained, points[-1].kept),
        cost=Cost(
            train_seconds=trained.seconds,
            evaluate_seconds=evaluated,
            steps=prepared.steps,
            tokens=tokens,
            padded_tokens=padded,
            looks=len(looks.seen),
            look_seconds=looks.seconds,
            host_memory=trained.memory.host,
            device_memory=trained.memory.device,
            adapter_bytes=stored_bytes(folder / "adapter"),
            **timed,
            **{f"prepare_{name}": value for name, value in trained.preparation.items()},
        ),
    )


def _plain(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as an array that is stored without pickling."""
    return labels.astype(str) if labels.dtype == object else labels


def _probe(prepared: Prepared) -> TrainingProbe:
    adapted, precision = prepared.adapted, prepared.spec.training.precision
    problem = prepared.task.problem
    batches = partial(training_batches, adapted, problem, prepared.data.train, prepared.order)
    return TrainingProbe(adapted.net, adapted.layers, batches, task_loss(adapted, problem, precision))


def _interim(prepared: Prepared, pattern: RankPattern) -> dict[str, float]:
    """The score on the search split during training, the parameters kept, and the score's largest standard error."""
    how, task, split = prepared.spec.training, prepared.task, prepared.data.held_out["search"]
    answers = predict(prepared.adapted, task, split, how.eval_batch_size, how.precision, metrics=task.metrics[:1])
    score = task.problem.scores(task.metrics[:1], answers, split.labels)[task.metrics[0]]
    parameters = prepared.adapted.stored(pattern)
    error = task.problem.standard_error(task.metrics[0], answers)
    return {"score": score, "parameters": parameters, "error": error}


def _answers(prepared: Prepared, pattern: RankPattern, check: Callable[[], None]) -> dict[str, Answers]:
    """The answers for every held-out split under a pattern, which stays applied."""
    how, held_out = prepared.spec.training, prepared.data.held_out
    apply_pattern(prepared.adapted.layers, pattern)
    answers = {
        split: predict(prepared.adapted, prepared.task, split, how.eval_batch_size, how.precision, check)
        for split in dict.fromkeys(held_out.values())  # one pass where two names share a split
    }
    return {name: answers[split] for name, split in held_out.items()}


def _point(prepared: Prepared, label: str, pattern: RankPattern, answers: dict[str, Answers], adapter: str) -> Point:
    held_out = prepared.data.held_out
    scores = {name: prepared.task.scores(answers[name], split.labels) for name, split in held_out.items()}
    kept = prepared.adapted.stored(pattern)
    return Point(label=label, pattern=pattern, kept=kept, search=scores.pop("search"), report=scores, adapter=adapter)


def _export(prepared: Prepared, pattern: RankPattern, folder: Path) -> None:
    adapted = prepared.adapted
    apply_pattern(adapted.layers, pattern)
    save_all(adapted.attached, folder)
    if adapted.head:
        adapted.model.config.save_pretrained(folder)  # labels and pad token, which PEFT does not keep
    if not (folder / PEFT_CONFIG).is_file():
        adapted.tokenizer.save_pretrained(folder)  # a checkpoint of the whole model needs nothing else


def _speed(prepared: Prepared) -> dict[str, float]:
    """Seconds of forward passes; nothing in a joint training, whose passes are those of several trials."""
    if type(prepared.lane) is not Lane:
        return {}
    how, split = prepared.spec.training, prepared.data.held_out["search"]
    return speed(prepared.adapted, prepared.task.problem, split, how.eval_batch_size, how.precision)


def _parameters(prepared: Prepared, trained: Trained, kept: int) -> Parameters:
    adapted, shapes = prepared.adapted, shapes_of(prepared.adapted.layers)
    others = sum(p.numel() for one in adapted.others.values() for p in one.parameters.values())
    gated = any(layer.g.requires_grad for layer in adapted.layers.values())
    return Parameters(
        base=adapted.base_parameters,
        head=adapted.head_parameters,
        trained=trained.peak.parameters(shapes) + gated * trained.peak.total + others,
        kept=kept,
    )


def _result(prepared: Prepared, **values: Any) -> TrialResult:
    hashes = {"data": prepared.data.fingerprint, "model": prepared.adapted.fingerprint}
    return TrialResult(
        key=prepared.spec.key,
        spec=prepared.spec.plain,
        metrics=prepared.task.metrics,
        minimised=prepared.task.minimised,
        layers=shapes_of(prepared.adapted.layers),
        environment=environment(prepared.adapted.device.type) | hashes | {"task_version": str(prepared.task.version)},
        **values,
    )


def _interrupt_if(stop: Callable[[], bool]) -> Callable[[], None]:
    def check() -> None:
        if stop():
            raise InterruptedTrialError

    return check
