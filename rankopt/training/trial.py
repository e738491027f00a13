"""One trial, from its spec to its result."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rankopt.allocators import ALLOCATORS
from rankopt.allocators.base import Allocator
from rankopt.core.budget import Budget
from rankopt.core.pattern import RankPattern
from rankopt.core.result import Cost, Observer, Parameters, Point, Progress, TrialResult
from rankopt.core.spec import TrialSpec, decode
from rankopt.lowrank.export import export_peft
from rankopt.lowrank.linear import Layers, ScalePolicy, apply_pattern, shapes_of
from rankopt.tasks import TASKS
from rankopt.tasks.encode import encode
from rankopt.tasks.metrics import evaluate
from rankopt.tasks.splits import read_splits
from rankopt.training.callback import AllocatorCallback
from rankopt.training.checkpoint import latest, step_of
from rankopt.training.environment import environment
from rankopt.training.evaluate import predict
from rankopt.training.model import load_adapted, model_source
from rankopt.training.order import Order, total_steps
from rankopt.training.trainer import NonFiniteLossError, TrialTrainer


class InterruptedTrialError(Exception):
    """The trial was asked to stop; its last step is in a checkpoint, and running it again continues from there."""


def run_trial(
    spec: TrialSpec,
    folder: Path,
    *,
    observe: Observer = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    checkpoint_steps: int | None = None,
) -> TrialResult:
    """Train one model under one allocator, and score it at every final pattern.

    Args:
        spec: what to do.
        folder: the trial's own; checkpoints are found and kept in `folder/checkpoints`, and `folder/adapter` (an
            ordinary PEFT adapter of the trial's own pattern) and `folder/predictions.npz` (logits and labels of every
            example, point and split) are written.
        observe: told about every step and every scored pattern.
        stop: asked after every step.
        checkpoint_steps: steps between checkpoints; a fifth of the trial when absent.
    Returns:
        A complete result, or a failed one when the loss or the outputs are no longer finite.
    Raises:
        ValueError: a wrong spec, data or model; one line that says what to do.
        InterruptedTrialError: `stop` said so.
        OSError: nothing can be written.
    """
    allocator = build_allocator(spec)
    task = TASKS[spec.task.name]
    splits = read_splits(
        task,
        data_dir=spec.task.data_dir,
        search_examples=spec.task.search_examples,
        train_examples=spec.task.train_examples,
        protocol=spec.task.protocol,
    )
    adapted = load_adapted(spec.model, scale_policy(spec, allocator), task, spec.seed)
    train = encode(task, splits.train, adapted.tokenizer, spec.task.max_length)
    held_out = {"search": splits.search, **splits.reports}
    encoded = {name: encode(task, split, adapted.tokenizer, spec.task.max_length) for name, split in held_out.items()}

    how = spec.training
    steps = total_steps(how.epochs, how.steps, len(train), how.batch_size, how.accumulation)
    layers, shapes = adapted.layers, shapes_of(adapted.layers)
    budget = absolute_budget(spec, layers)
    order = Order(train.lengths, how.batch_size, spec.seed, how.group_by_length)
    state = allocator.start(layers, budget, steps, spec.seed)
    every = checkpoint_steps or max(1, -(-steps // 5))
    callback = AllocatorCallback(allocator, state, layers, budget, order, observe, stop, every)
    checkpoints = folder / "checkpoints"
    trainer = TrialTrainer(adapted, train, how, steps, spec.seed, checkpoints, callback)
    resumed = latest(checkpoints)
    record = TrialResult(
        key=spec.key,
        spec=spec.model_dump(mode="json", exclude_defaults=True),
        status="failed",
        metrics=task.metrics,
        layers=shapes,
        environment=environment()
        | {"data": splits.fingerprint, "model": adapted.fingerprint, "task_version": str(task.version)},
    )
    try:
        if resumed and step_of(resumed) == steps:
            trainer.load(resumed)  # it was interrupted while being scored
        else:
            trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        if callback.stopped:
            raise InterruptedTrialError
        began = time.perf_counter()
        patterns = allocator.finish(callback.state, layers)
        points, arrays = [], {f"labels/{name}": data.labels for name, data in encoded.items()}
        for index, pattern in enumerate(patterns):
            apply_pattern(layers, pattern)
            label = "budget" if index == 0 else f"mean rank {pattern.mean:.4g}"
            logits = {
                name: predict(adapted, data, how.eval_batch_size, how.precision, _unless(stop))
                for name, data in encoded.items()
            }
            scores = {name: evaluate(task, logits[name], data.labels) for name, data in encoded.items()}
            search, kept = scores.pop("search"), pattern.parameters(shapes)
            points.append(Point(label=label, pattern=pattern, kept=kept, search=search, report=scores))
            arrays |= {f"logits/{label}/{name}": values for name, values in logits.items()}
            observe(Progress(index + 1, len(patterns), "evaluate", {"score": search[task.metrics[0]]}))
    except (NonFiniteLossError, FloatingPointError) as error:
        return record.model_copy(update={"reason": str(error)})
    apply_pattern(layers, patterns[0])
    export_peft(
        layers, adapted.net, folder / "adapter", head=adapted.head, base_model=model_source(spec.model),
        revision=spec.model.revision,
    )  # fmt: skip
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
            "notes": tuple(callback.state.get("notes", ())),
            "parameters": Parameters(
                base=adapted.base_parameters,
                head=adapted.head_parameters,
                trained=opened.parameters(shapes) + gates,
                kept=points[0].kept,
            ),
            "cost": Cost(
                train_seconds=callback.seconds,
                evaluate_seconds=time.perf_counter() - began,
                steps=steps,
                tokens=tokens,
                padded_tokens=padded,
            ),
        }
    )


def build_allocator(spec: TrialSpec) -> Allocator:
    """The allocator of a trial, its options validated.

    Raises:
        ValueError: an unknown name, a missing budget, or a scale policy under which the method would change its own
            function; pydantic's ValidationError for a wrong option.
    """
    kind = ALLOCATORS.get(spec.allocator.name)
    if kind is None:
        raise ValueError(f"allocator.name must be one of {', '.join(ALLOCATORS)}, got {spec.allocator.name!r}")
    allocator = decode(kind, spec.allocator.options)
    if spec.budget is None and kind.needs_budget:
        raise ValueError(f"budget must be given for the allocator {spec.allocator.name!r}")
    policy = spec.model.scale
    if policy != "published" and policy not in kind.scales:
        raise ValueError(
            f"model.scale must be published or one of {', '.join(sorted(kind.scales))} for the allocator "
            f"{spec.allocator.name!r}, got {policy!r}"
        )
    return allocator


def scale_policy(spec: TrialSpec, allocator: Allocator) -> ScalePolicy:
    """The scale policy of a trial."""
    return allocator.scale if spec.model.scale == "published" else spec.model.scale


def absolute_budget(spec: TrialSpec, layers: Layers) -> Budget:
    """The trial's budget as an absolute amount; everything the layers can hold when there is none.

    Raises:
        ValueError: more than the layers can hold at `model.max_rank`.
    """
    shapes = shapes_of(layers)
    full = Budget(mean_rank=spec.model.max_rank, unit=spec.budget.unit if spec.budget else "ranks")
    budget = spec.budget or full
    if budget.amount(shapes) > full.amount(shapes):
        raise ValueError(
            f"budget must be at most {full.amount(shapes)} {budget.unit} for {len(shapes)} layers of model.max_rank "
            f"{spec.model.max_rank}, got {budget.amount(shapes)}"
        )
    return Budget.of(budget.amount(shapes), budget.unit)


def _unless(stop: Callable[[], bool]) -> Callable[[], None]:
    def check() -> None:
        if stop():
            raise InterruptedTrialError

    return check
