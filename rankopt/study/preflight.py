"""Read data and model configs before a study runs: which trials can start, and what they will cost."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from rankopt.core.errors import InvalidSpecError, Location, Violation, violation_of
from rankopt.core.retain_spec import RetainSpec
from rankopt.core.space import Assignment
from rankopt.core.spec import content_hash
from rankopt.core.study_file import StudyFile
from rankopt.core.study_spec import StudySpec
from rankopt.core.task_spec import TaskSpec
from rankopt.core.trial_spec import LORA, ModelSpec, TrainingSpec, TrialSpec
from rankopt.study.contents import local_contents

if TYPE_CHECKING:
    from rankopt.tasks.problems import Problem
    from rankopt.training.skeleton import Skeleton


@dataclass(frozen=True)
class PlannedTrial:
    """A trial that can start.

    Attributes:
        assignment: its point of the space.
        spec: the trial.
        steps: optimiser steps.
        tokens: training tokens that pass through the model, padding included.
        flops: floating-point operations of the training, about `4 * weights * tokens` (a frozen weight is multiplied
            once in the forward and once in the backward pass).
        coverage: share of the model's block weights that are in adapted maps; 0 without LoRA.
        parameters: stored beside the base model: for LoRA what the budget allows, and what other tuners store at the
            start.
    """

    assignment: Assignment
    spec: TrialSpec
    steps: int
    tokens: int
    flops: float
    coverage: float
    parameters: int


@dataclass(frozen=True)
class Preflight:
    """What a preflight found.

    Attributes:
        study: the study, with the hashes of its local folders.
        planned: the distinct trials that can start.
        unfit: for each of a search's other examples, why it cannot start.
        notes: remarks about the data, such as the order of the classes.
        device: the type of device that the trials train on.
    """

    study: StudySpec
    planned: list[PlannedTrial]
    unfit: list[str]
    notes: list[str]
    device: str

    @property
    def trials(self) -> list[tuple[Assignment, TrialSpec]]:
        """The trials that can start, each with its point of the space."""
        return [(trial.assignment, trial.spec) for trial in self.planned]


def preflight(file: StudyFile, trials: list[tuple[Assignment, TrialSpec]], device: str = "auto") -> Preflight:
    """Read the data and the models' configs, and run every allocator's `start` on layers without storage.

    Args:
        file: the study.
        trials: all trials of a grid; for a search examples, the first of which must be able to start.
        device: see `choose_device`.
    Raises:
        ValueError: torch cannot use the device.
        InvalidSpecError: a missing folder, an unknown model, a target that matches no layer, a budget that no pattern
            can meet, ...
    """
    from rankopt.allocators.build import absolute_budget, build_allocator
    from rankopt.lowrank.layers import shapes_of
    from rankopt.tasks import task_of
    from rankopt.training.base_weights import check_base, check_memory
    from rankopt.training.device import choose_device
    from rankopt.tuners.build import build_tuners

    kind = choose_device(device)
    planned, lines, unfit, started, notes = [], [], [], set(), dict[str, None]()
    for number, (assignment, spec) in enumerate(trials):
        given = [name for name in ("data_dir", "data") if getattr(spec.task, name) is not None]
        field: Location = ("task", *(given or ["name"]))  # for a message that names no field
        try:
            steps, tokens, remarks = _training_size(spec.task, spec.model, spec.training)
            notes |= dict.fromkeys(remarks)
            field = ("model", "name")
            check_base(spec.model, spec.training.precision, kind)
            skeleton = _skeleton(task_of(spec.task).problem, spec.model)
            check_memory(spec.model, skeleton.weights, skeleton.multiplied, kind)
            widest = max(min(layer.shape) for layer in skeleton.layers.values())
            if spec.has_ranks and spec.model.max_rank > widest:
                raise ValueError(
                    f"model.max_rank must be at most {widest}, the highest rank that an adapted layer of "
                    f"{spec.model.name!r} can have, got {spec.model.max_rank}"
                )
            _check_batch(spec.task, spec.model, sum(tuner.positions() for tuner in build_tuners(spec).values()))
            if spec.retain is not None:
                field = ("retain",)
                _check_retained(spec.retain, spec.task, spec.model)
            field = ("tuner",)
            parameters = _tuned_parameters(spec, steps)
            field = ("allocator",)
            layers = skeleton.layers if spec.has_ranks else {}
            budget, shapes = absolute_budget(spec, layers), shapes_of(layers)
            parameters += round(budget.level(shapes) * sum(shape.cost for shape in shapes.values()))
            start = (content_hash(spec.model_dump(mode="json", include={"allocator", "budget", "model"})), steps)
            if start not in started:
                build_allocator(spec).start(layers, budget, steps, spec.seed)
                started.add(start)
            coverage = skeleton.coverage if spec.has_ranks else 0.0
            flops = 4.0 * skeleton.multiplied * tokens
            planned.append(PlannedTrial(assignment, spec, steps, tokens, flops, coverage, parameters))
        except ValueError as error:
            if number and file.sampled and field == ("allocator",):
                unfit.append(str(error))  # the budget cannot be met at this point; the search records such a failure
                continue
            problem = violation_of(str(error))
            unnamed = Violation(field, f"cannot be used: {problem.message}")
            lines.append(file.line(problem if problem.location else unnamed, assignment))
    if lines:
        raise InvalidSpecError(lines)
    contents = local_contents(spec for _, spec in trials)
    study = file.study.model_copy(
        update={"contents": contents, "objectives": directed(file, [spec for _, spec in trials])}
    )
    distinct: dict[str, PlannedTrial] = {}
    for trial in planned:
        spec = study.with_contents(trial.spec)
        distinct.setdefault(spec.key, replace(trial, spec=spec))
    return Preflight(study, list(distinct.values()), unfit, list(notes), kind)


def directed(file: StudyFile, trials: Iterable[TrialSpec]) -> dict[Any, Any]:
    """The study's objectives, with the direction of `score` that the primary metrics of its tasks have.

    Raises:
        InvalidSpecError: the file says another direction, or a search would compare metrics of both directions.
    """
    from rankopt.tasks import task_of

    study = file.study
    objectives = dict(study.objectives)
    metrics: dict[str, str] = {}
    for spec in (training for trial in trials for training in study.trainings(trial)):
        task = task_of(spec.task)
        metrics[task.metrics[0]] = "minimize" if task.minimised[:1] == task.metrics[:1] else "maximize"
    if "score" not in objectives or not metrics or (len(set(metrics.values())) > 1 and study.listed):
        return objectives
    if len(set(metrics.values())) > 1:
        names = " and ".join(sorted(metrics))
        raise InvalidSpecError([file.at(("search",), f"cannot compare metrics of both directions, got {names}")])
    metric, direction = next(iter(metrics.items()))
    if "objectives" in study.model_fields_set and objectives["score"] != direction:
        said = f"must be {direction!r} for the metric {metric!r}, got {objectives['score']!r}"
        raise InvalidSpecError([file.at(("objectives", "score"), said)])
    return objectives | {"score": direction}


def seconds_per_flop(precision: str = "fp32", device: str = "cpu", seconds: float = 0.3) -> float:
    """Measure the time of one floating-point operation in a large matrix product.

    Args:
        precision: of a training; bf16 is many times slower on a CPU that only emulates it.
        device: "cuda", "mps" or "cpu".
        seconds: duration of the measurement.
    """
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    a = torch.randn(512, 512, device=device, dtype=dtype)
    (a @ a).sum().item()  # the first product loads a library
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        (a @ a)[0, 0].item()  # wait for the result: a GPU only queues its products
        count += 1
    return (time.perf_counter() - began) / (count * 2 * 512**3)


@cache
def _skeleton(problem: Problem, model: ModelSpec) -> Skeleton:
    from rankopt.training.skeleton import skeleton_of

    return skeleton_of(model, "unit", problem)


def _tuned_parameters(spec: TrialSpec, steps: int) -> int:
    """What tuners other than LoRA store beside the base model."""
    others = tuple(tuner for tuner in spec.tuners if tuner.name != LORA)
    alone = spec.model_copy(update={"tuner": others, "allocator": None, "budget": None})
    fields = alone.model_dump(mode="json", include={"task", "model", "tuner"})
    key = content_hash({**fields, "steps": steps})
    if key not in _SIZES:
        from rankopt.training.skeleton import tuned_parameters

        _SIZES[key] = tuned_parameters(alone, steps) if others else 0
    return _SIZES[key]


_SIZES: dict[str, int] = {}
"""Hash of the task's name, model, tuners and steps -> stored parameters."""


@cache
def _check_batch(task: TaskSpec, model: ModelSpec, extra: int) -> None:
    from rankopt.tasks import task_of
    from rankopt.training.data import load_data
    from rankopt.training.dry_run import check_batch
    from rankopt.training.pretrained import load_tokenizer

    data = load_data(task, load_tokenizer(model.name, model.revision))
    check_batch(model, data, task.max_length, task_of(task).problem, extra)


@cache
def _check_retained(retain: RetainSpec, task: TaskSpec, model: ModelSpec) -> None:
    """Read the material of `retain`, and see whether the model has positions for it."""
    from rankopt.training.data import Data
    from rankopt.training.dry_run import check_batch
    from rankopt.training.pretrained import load_tokenizer
    from rankopt.training.retained import load_retained, named_retain

    other, rows = load_retained(retain, task, load_tokenizer(model.name, model.revision))
    with named_retain():
        check_batch(model, Data(rows, {}, "", ()), retain.max_length, other.problem)


@cache
def _training_size(task: TaskSpec, model: ModelSpec, training: TrainingSpec) -> tuple[int, int, tuple[str, ...]]:
    """Optimiser steps and padded tokens of a training, and remarks about its data."""
    from rankopt.training.data import load_data
    from rankopt.training.order import Order, total_steps
    from rankopt.training.pretrained import load_tokenizer

    data = load_data(task, load_tokenizer(model.name, model.revision))
    lengths = data.train.lengths
    steps = total_steps(training.epochs, training.steps, len(lengths), training.batch_size, training.accumulation)
    order = Order(lengths, training.batch_size, 0, training.group_by_length)
    return steps, order.count(steps, training.accumulation)[1], data.notes
