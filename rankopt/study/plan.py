"""What a study would run: every trial, checked before any of them starts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from rankopt.core.problems import InvalidSpecError, Path, Problem, nearest, placed
from rankopt.core.spec import ModelSpec, TaskSpec, TrainingSpec, TrialSpec, content_hash
from rankopt.core.study_file import StudyFile, check_options
from rankopt.search import SEARCHES
from rankopt.tasks import TASKS

if TYPE_CHECKING:
    from rankopt.lowrank.linear import Layers

Choice = dict[str, Any]


@dataclass(frozen=True)
class PlannedTrial:
    """A trial of the plan.

    Attributes:
        choice: its point of the space.
        spec: the trial.
        steps: optimiser steps.
        tokens: tokens that pass through the model in training, padding included.
        flops: floating-point operations of its training, about `4 * weights * tokens` (a frozen weight is multiplied
            once forward and once backward).
    """

    choice: Choice
    spec: TrialSpec
    steps: int
    tokens: int
    flops: float


def checked_trials(file: StudyFile) -> list[tuple[Choice, TrialSpec]]:
    """All trials of a study whose names and allocator options are valid; nothing is read.

    The allocator's defaults are dropped from its options, so that spelling one out does not make another trial.

    Raises:
        InvalidSpecError: one line per problem, placed in the file.
    """
    from rankopt.allocators import ALLOCATORS
    from rankopt.allocators.build import build_allocator

    study = file.study
    if study.search.name not in SEARCHES:
        message = f"must be a known search, got {study.search.name!r}{nearest(study.search.name, SEARCHES)}"
        raise InvalidSpecError([file.at(("search", "name"), message)])
    lines, trials, seen = [], [], set()
    try:
        queue = list(SEARCHES[study.search.name]().queue(study))
    except ValueError as error:
        problem = placed(str(error))
        raise InvalidSpecError([file.at(problem.path, problem.message)]) from None
    for choice in queue:
        spec = study.trial(choice)
        found = list(_name_problems(spec, ALLOCATORS))
        if not found:
            found = check_options(ALLOCATORS[spec.allocator.name], spec.allocator.options)
        if not found:
            try:
                allocator = build_allocator(spec)
                options = allocator.model_dump(mode="json", exclude_defaults=True)
                spec = spec.model_copy(update={"allocator": type(spec.allocator)(name=spec.allocator.name, **options)})
            except ValueError as error:
                found = [placed(str(error))]
        lines += [file.line(problem, choice) for problem in found]
        if not found and spec.key not in seen:
            seen.add(spec.key)
            trials.append((choice, spec))
    if lines:
        raise InvalidSpecError(lines)
    return trials


def preflight(file: StudyFile, trials: list[tuple[Choice, TrialSpec]]) -> list[PlannedTrial]:
    """Read the data and the models' configs, and try every allocator's start on layers without storage.

    Raises:
        InvalidSpecError: a missing folder, an unknown model, a target that matches no layer, a budget that no pattern
            can meet, ...
    """
    from rankopt.allocators.build import absolute_budget, build_allocator

    planned, lines, tried = [], [], set()
    for choice, spec in trials:
        where: Path = ("task", "data_dir" if spec.task.data_dir else "name")  # for a message that names no field
        try:
            steps, tokens, longest = _length(spec.task, spec.model, spec.training)
            where = ("model", "name")
            layers, weights = _layers(spec.model)
            if (most := _positions(spec.model)) and longest > most:
                raise ValueError(
                    f"task.max_length must be at most {most} for {spec.model.name!r}, which has no more positions, "
                    f"got {spec.task.max_length}"
                )
            where = ("allocator",)
            start = (content_hash(spec.model_dump(mode="json", include={"allocator", "budget", "model"})), steps)
            if start not in tried:
                build_allocator(spec).start(layers, absolute_budget(spec, layers), steps, spec.seed)
                tried.add(start)
            planned.append(PlannedTrial(choice, spec, steps, tokens, 4.0 * weights * tokens))
        except ValueError as error:
            problem = placed(str(error))
            lines.append(file.line(problem if problem.path else Problem(where, problem.message), choice))
    if lines:
        raise InvalidSpecError(lines)
    return planned


def seconds_per_flop(seconds: float = 0.3) -> float:
    """The time of one floating-point operation in a large matrix product on this machine, measured now."""
    import torch

    a = torch.randn(512, 512)
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        a @ a
        count += 1
    return (time.perf_counter() - began) / (count * 2 * 512**3)


def _name_problems(spec: TrialSpec, allocators: dict[str, Any]) -> Iterator[Problem]:
    for path, name, table in (
        (("task", "name"), spec.task.name, TASKS),
        (("allocator", "name"), spec.allocator.name, allocators),
    ):
        if name not in table:
            yield Problem(path, f"must be a known {path[0]}, got {name!r}{nearest(name, table)}")


@cache
def _layers(spec: ModelSpec) -> tuple[Layers, int]:
    from rankopt.training.model import meta_layers

    return meta_layers(spec, "unit")


@cache
def _positions(spec: ModelSpec) -> int | None:
    from rankopt.training.model import longest_input

    return longest_input(spec)


@cache
def _length(task: TaskSpec, model: ModelSpec, how: TrainingSpec) -> tuple[int, int, int]:
    """Optimiser steps and padded tokens of a training, and the longest example of any split."""
    from rankopt.training.data import load_data
    from rankopt.training.model import load_tokenizer
    from rankopt.training.order import Order, total_steps

    data = load_data(task, load_tokenizer(model.name, model.revision))
    lengths = data.train.lengths
    longest = max(int(part.lengths.max()) for part in (data.train, *data.held_out.values()))
    steps = total_steps(how.epochs, how.steps, len(lengths), how.batch_size, how.accumulation)
    tokens = Order(lengths, how.batch_size, 0, how.group_by_length).count(steps, how.accumulation)[1]
    return steps, tokens, longest
