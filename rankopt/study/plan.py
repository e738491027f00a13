"""What a study would run: every trial, checked before any of them starts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rankopt.core.problems import InvalidSpecError, Path, Problem, nearest, placed
from rankopt.core.space import Assignment
from rankopt.core.spec import ModelSpec, Named, TaskSpec, TrainingSpec, TrialSpec, content_hash, decode
from rankopt.core.study_file import StudyFile, check_options
from rankopt.search import SEARCHES, build_search
from rankopt.search.pruners import PRUNERS, build_pruner
from rankopt.tasks import TASKS

if TYPE_CHECKING:
    from rankopt.lowrank.layers import Layers


@dataclass(frozen=True)
class PlannedTrial:
    """A trial of the plan.

    Attributes:
        assignment: its point of the space.
        spec: the trial.
        steps: optimiser steps.
        tokens: tokens that pass through the model in training, padding included.
        flops: floating-point operations of its training, about `4 * weights * tokens` (a frozen weight is multiplied
            once forward and once backward).
    """

    assignment: Assignment
    spec: TrialSpec
    steps: int
    tokens: int
    flops: float


def checked_trials(file: StudyFile) -> list[tuple[Assignment, TrialSpec]]:
    """The trials of a study, with valid names and allocator options; nothing is read.

    Of a grid, all of them; of a search, examples: every listed value and both ends of every range, once.

    Raises:
        InvalidSpecError: one line per problem, placed in the file.
    """
    from rankopt.allocators import ALLOCATORS

    _check_search(file)
    pruner = file.study.search.options.get("pruner")
    pruned = pruner is not None and build_pruner(decode(Named, pruner)).evaluations > 0
    super_network = SEARCHES[file.study.search.name].super_network
    lines, trials, seen = [], [], set()
    for number, assignment in enumerate(file.assignments()):
        try:
            spec = checked(file.study.trial(assignment))
        except ValidationError:
            continue  # an example whose fields do not go together; see `StudyFile`
        except InvalidTrialError as error:
            if number and file.sampled and not error.structural:
                continue
            lines += [file.line(problem, assignment) for problem in error.problems]
        else:
            if pruned and not ALLOCATORS[spec.allocator.name].is_fixed():
                problem = Problem(("allocator", "name"), UNFIXED.format(spec.allocator.name))
                lines.append(file.line(problem, assignment))
            if super_network and not ALLOCATORS[spec.allocator.name].trains_super_network():
                able = ", ".join(name for name, kind in ALLOCATORS.items() if kind.trains_super_network())
                text = f"must be an allocator that trains a super-network ({able}) under the search "
                text += f"{file.study.search.name!r}, got {spec.allocator.name!r}"
                lines.append(file.line(Problem(("allocator", "name"), text), assignment))
            if spec.key not in seen:
                seen.add(spec.key)
                trials.append((assignment, spec))
    if lines:
        raise InvalidSpecError(lines)
    return trials


UNFIXED = (
    "must fix its pattern before training where search.pruner stops trials early, and {!r} changes it on the way; "
    "leave the pruner out, or make training.epochs a dimension: a shorter training then has its own complete schedule"
)


class InvalidTrialError(ValueError):
    """A trial that cannot be: its problems, and whether they are there whatever the other fields say."""

    def __init__(self, problems: list[Problem], structural: bool) -> None:
        self.problems, self.structural = problems, structural
        super().__init__("; ".join(map(str, problems)))


def checked(spec: TrialSpec) -> TrialSpec:
    """A trial with valid names and allocator options, in its canonical form.

    The allocator's defaults are dropped from its options, so that spelling one out does not make another trial.

    Raises:
        InvalidTrialError: otherwise.
    """
    from rankopt.allocators import ALLOCATORS
    from rankopt.allocators.build import build_allocator

    found = list(_name_problems(spec, ALLOCATORS)) or check_options(
        ALLOCATORS[spec.allocator.name], spec.allocator.options, "allocator"
    )
    if found:
        raise InvalidTrialError(found, structural=True)
    try:
        allocator = build_allocator(spec)
    except ValueError as error:
        raise InvalidTrialError([placed(str(error))], structural=False) from None
    options = allocator.model_dump(mode="json", exclude_defaults=True)
    return spec.model_copy(update={"allocator": type(spec.allocator)(name=spec.allocator.name, **options)})


def _check_search(file: StudyFile) -> None:
    """Refuse an unknown search, wrong options of it or of its pruner, and a space that does not suit it."""
    spec = file.study.search
    if spec.name not in SEARCHES:
        raise InvalidSpecError(
            [file.at(("search", "name"), f"must be a known search, got {spec.name!r}{nearest(spec.name, SEARCHES)}")]
        )
    found = check_options(SEARCHES[spec.name], spec.options, "search")
    pruner = spec.options.get("pruner")
    if not found and pruner:
        options = {key: value for key, value in pruner.items() if key != "name"}
        found = check_options(PRUNERS[pruner["name"]], options, "search", "pruner") if pruner["name"] in PRUNERS else []
    if found:
        raise InvalidSpecError(file.at(problem.path, problem.message) for problem in found)
    try:
        build_search(file.study).check(file.study)
    except ValueError as error:
        problem = placed(str(error))
        raise InvalidSpecError([file.at(problem.path, problem.message)]) from None


def preflight(file: StudyFile, trials: list[tuple[Assignment, TrialSpec]]) -> tuple[list[PlannedTrial], list[str]]:
    """Read the data and the models' configs, and try every allocator's start on layers without storage.

    Args:
        file: the study.
        trials: all of a grid; of a search examples, the first of which must be able to start.
    Returns:
        The trials that can start, and why each of a search's other examples cannot.
    Raises:
        InvalidSpecError: a missing folder, an unknown model, a target that matches no layer, a budget that no pattern
            can meet, ...
    """
    from rankopt.allocators.build import absolute_budget, build_allocator

    planned, lines, unfit, tried = [], [], [], set()
    for number, (assignment, spec) in enumerate(trials):
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
            planned.append(PlannedTrial(assignment, spec, steps, tokens, 4.0 * weights * tokens))
        except ValueError as error:
            if number and file.sampled and where == ("allocator",):
                unfit.append(str(error))  # too much for the budget at this point; such a trial is told as failed
                continue
            problem = placed(str(error))
            lines.append(file.line(problem if problem.path else Problem(where, problem.message), assignment))
    if lines:
        raise InvalidSpecError(lines)
    return planned, unfit


def seconds_per_flop(precision: str = "fp32", seconds: float = 0.3) -> float:
    """The time of one floating-point operation in a large matrix product where trials train here, measured now.

    Args:
        precision: "fp32" or "bf16", which a CPU without instructions for it emulates at a fraction of the pace.
        seconds: to measure for.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.randn(512, 512, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    (a @ a).sum().item()  # the first product loads a library
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        (a @ a)[0, 0].item()  # a GPU's products are only queued
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
