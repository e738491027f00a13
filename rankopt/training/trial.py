"""One trial, from its spec to its result."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rankopt.allocators.build import absolute_budget, build_allocator, scale_policy
from rankopt.core.pattern import RankPattern
from rankopt.core.result import Cost, Observer, Parameters, Point, Progress, TrialResult
from rankopt.core.spec import TrialSpec
from rankopt.lowrank.export import export_peft
from rankopt.lowrank.linear import apply_pattern, shapes_of
from rankopt.tasks import TASKS
from rankopt.tasks.metrics import evaluate
from rankopt.training.callback import AllocatorCallback
from rankopt.training.checkpoint import latest, step_of
from rankopt.training.data import load_data
from rankopt.training.environment import environment
from rankopt.training.evaluate import Looks, predict
from rankopt.training.model import load_adapted, model_source
from rankopt.training.order import Order, total_steps
from rankopt.training.trainer import NonFiniteLossError, TrialTrainer

if TYPE_CHECKING:
    from rankopt.training.joint.together import Lane


class InterruptedTrialError(Exception):
    """The trial was asked to stop; its last step is in a checkpoint, and running it again continues from there."""


def run_trial(
    spec: TrialSpec,
    folder: Path,
    *,
    observe: Observer = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint_steps: int | None = None,
    evaluations: int = 0,
    lane: Lane | None = None,
) -> TrialResult:
    """Train one model under one allocator, and score it at every final pattern.

    Args:
        spec: what to do.
        folder: the trial's own; checkpoints are found and kept in `folder/checkpoints`, and `folder/adapter` (an
            ordinary PEFT adapter of the trial's own pattern) and `folder/predictions.npz` (logits and labels of every
            example, point and split) are written; where the allocator restarts the schedule also `folder/recovered`,
            of the same pattern as trained since then: the adapter that all other points are cut from.
        observe: told about every step and every scored pattern.
        stop: asked after every step.
        checkpoint_steps: steps between checkpoints; one every half a minute when absent.
        evaluations: how often the model is scored on the search split while it trains, at equal distances and not at
            the end; `observe` is told, and nothing else changes.
        lane: its place among trials that run at once; see `together`.
    Returns:
        A complete result, or a failed one when the loss or the outputs are no longer finite.
    Raises:
        ValueError: a wrong spec, data or model; one line that says what to do.
        InterruptedTrialError: `stop` said so.
        OSError: nothing can be written, or the checkpoint to continue from is corrupt.
    """
    allocator = build_allocator(spec)
    task = TASKS[spec.task.name]
    adapted = load_adapted(spec.model, scale_policy(spec, allocator), task, spec.seed)
    if lane:
        lane.take(adapted)
    data = load_data(spec.task, adapted.tokenizer)
    how = spec.training
    steps = total_steps(how.epochs, how.steps, len(data.train), how.batch_size, how.accumulation)
    layers, shapes = adapted.layers, shapes_of(adapted.layers)
    budget = absolute_budget(spec, layers)
    order = Order(data.train.lengths, how.batch_size, spec.seed, how.group_by_length)
    state = allocator.start(layers, budget, steps, spec.seed)

    def interim(pattern: RankPattern) -> dict[str, float]:
        split = data.held_out["search"]
        scores = evaluate(task, predict(adapted, split, how.eval_batch_size, how.precision), split.labels)
        error = 0.5 / math.sqrt(len(split))  # the most that a share of right answers can have
        return {"score": scores[task.metrics[0]], "parameters": pattern.parameters(shapes), "error": error}

    arrays = {f"labels/{name}": split.labels for name, split in data.held_out.items()}

    def score(label: str, pattern: RankPattern, adapter: str, place: int, places: int) -> Point:
        apply_pattern(layers, pattern)
        answers = {
            split: predict(adapted, split, how.eval_batch_size, how.precision, _unless(stop))
            for split in dict.fromkeys(data.held_out.values())
        }
        logits = {name: answers[split] for name, split in data.held_out.items()}
        arrays.update({f"logits/{label}/{name}": values for name, values in logits.items()})
        scores = {name: evaluate(task, logits[name], split.labels) for name, split in data.held_out.items()}
        search, kept = scores.pop("search"), pattern.parameters(shapes)
        observe(Progress(place, places, "evaluate", {"score": search[task.metrics[0]]}))
        return Point(label=label, pattern=pattern, kept=kept, search=search, report=scores, adapter=adapter)

    def export(pattern: RankPattern, to: Path) -> None:
        apply_pattern(layers, pattern)
        base = model_source(spec.model.name)
        export_peft(layers, adapted.net, to, head=adapted.head, base_model=base, revision=spec.model.revision)

    scored = {round(steps * place / (evaluations + 1)) for place in range(1, evaluations + 1)} - {0, steps}
    clock = lane.player.clock if lane else time.perf_counter
    callback = AllocatorCallback(
        allocator, state, layers, budget, order, observe, stop, checkpoint_steps, scored=scored, score=interim,
        clock=clock,
    )  # fmt: skip
    look = Looks(
        adapted, data.held_out["search"], task, how.eval_batch_size, how.precision, _unless(stop), observe, clock
    )
    checkpoints = folder / "checkpoints"
    backward = lane.backward if lane else lambda: None
    trainer = TrialTrainer(adapted, data.train, how, steps, spec.seed, checkpoints, callback, backward)
    resumed = latest(checkpoints)
    record = TrialResult(
        key=spec.key,
        spec=spec.plain,
        status="failed",
        metrics=task.metrics,
        layers=shapes,
        environment=environment()
        | {"data": data.fingerprint, "model": adapted.fingerprint, "task_version": str(task.version)},
    )
    try:
        if resumed and step_of(resumed) == steps:
            trainer.load(resumed)  # it was interrupted while being scored
        else:
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        if callback.stopped:
            raise InterruptedTrialError
        began = clock()
        own, *others = allocator.finish(callback.state, layers)
        patterns = {f"mean rank {pattern.mean:.4g}": pattern for pattern in others}
        patterns |= allocator.choose(callback.state, layers, look)
        source, places = "recovered" if allocator.restart(steps) else "adapter", len(patterns) + 1
        points = [score(*item, source, place, places) for place, item in enumerate(patterns.items(), 1)]
        if source == "recovered":
            export(own, folder / source)
            trainer.rewind()
        points.insert(0, score("budget", own, "adapter", places, places))
    except (NonFiniteLossError, FloatingPointError) as error:
        return record.model_copy(update={"reason": str(error)})
    export(own, folder / "adapter")
    np.savez_compressed(folder / "predictions.npz", **arrays)  # type: ignore[arg-type]
    ranks, losses = callback.trace()
    tokens, padded = order.count(steps, how.accumulation)
    gates = sum(layer.initial for layer in layers.values() if layer.g.requires_grad)
    opened = RankPattern({name: layer.initial for name, layer in layers.items()})
    return record.model_copy(
        update={
            "status": "complete",
            "points": tuple(points),
            "ranks": ranks,
            "losses": losses,
            "looks": tuple(look.seen),
            "measured": callback.state.get("measured", {}),
            "notes": tuple(callback.state.get("notes", ())),
            "parameters": Parameters(
                base=adapted.base_parameters,
                head=adapted.head_parameters,
                trained=opened.parameters(shapes) + gates,
                kept=points[0].kept,
            ),
            "cost": Cost(
                train_seconds=callback.seconds,
                evaluate_seconds=clock() - began,
                steps=steps,
                tokens=tokens,
                padded_tokens=padded,
                looks=len(look.seen),
                look_seconds=look.seconds,
            ),
        }
    )


def _unless(stop: Callable[[], bool]) -> Callable[[], None]:
    def check() -> None:
        if stop():
            raise InterruptedTrialError

    return check
