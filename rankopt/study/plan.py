"""Validate the trials of a study: names, options, its search, whether its files exist. Reads no data and no model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rankopt.core.errors import InvalidSpecError, Location, Violation, nearest, shown, violation_of
from rankopt.core.path import paths_of
from rankopt.core.space import Assignment
from rankopt.core.spec import Named, decode
from rankopt.core.study_file import StudyFile, check_options
from rankopt.core.study_spec import first_repeated
from rankopt.core.task_spec import TaskSpec
from rankopt.core.trial_spec import AllocatorSpec, TrialSpec, TunerSpec
from rankopt.search import SEARCHES, build_search
from rankopt.search.base import Search
from rankopt.search.pruners import PRUNERS, build_pruner
from rankopt.tasks import TASKS
from rankopt.tasks.metrics import metrics_of
from rankopt.tasks.sources import files_of

NOT_FIXED = (
    "must fix its rank pattern before training, because search.pruner stops trials early; {!r} changes it during "
    "training. Remove the pruner, or make training.epochs a dimension: each length then has its own schedule"
)


class InvalidTrialError(ValueError):
    """An invalid trial.

    Attributes:
        violations: what is wrong with it.
        structural: whether it stays invalid whatever the values of other dimensions.
    """

    def __init__(self, problems: list[Violation], structural: bool) -> None:
        self.violations, self.structural = problems, structural
        super().__init__("; ".join(map(str, problems)))


def validated_trials(file: StudyFile) -> list[tuple[Assignment, TrialSpec]]:
    """All trials of a grid; for a search, examples: every listed value and both ends of every range.

    Raises:
        InvalidSpecError: one line per problem, with its line in the file.
    """
    from rankopt.allocators import ALLOCATORS

    _validate_search(file)
    pruner = file.study.search.options.get("pruner")
    prunes = pruner is not None and build_pruner(decode(Named, pruner)).evaluations > 0
    search = build_search(file.study)
    lines, trials, seen = list(_hidden_problems(file)), [], set()
    for number, assignment in enumerate(file.assignments()):
        try:
            spec = validated(file.study.trial(assignment))
        except ValidationError:
            continue  # an example whose fields do not go together; see `StudyFile`
        except InvalidTrialError as error:
            if number and file.sampled and not error.structural:
                continue
            lines += [file.line(problem, assignment) for problem in error.violations]
        else:
            allocator = ALLOCATORS[spec.allocator.name] if spec.allocator else None
            if prunes and allocator and not allocator.is_fixed():
                problem = Violation(("allocator", "name"), NOT_FIXED.format(spec.method.name))
                lines.append(file.line(problem, assignment))
            lines += _super_network_problems(file, search, assignment, spec)
            if spec.key not in seen:
                seen.add(spec.key)
                trials.append((assignment, spec))
    if lines:
        raise InvalidSpecError(lines)
    return trials


def refuse_missing_files(file: StudyFile, trials: Iterable[tuple[Assignment, TrialSpec]]) -> None:
    """Look whether the local data files of trials exist; nothing is read.

    Raises:
        InvalidSpecError: one line per file that does not, with its line in the study file and the nearest name.
    """
    lines = dict[str, None]()
    for assignment, spec in trials:
        folder = spec.task.data_dir
        if folder is not None and not Path(folder).is_dir():
            problem = Violation(("task", "data_dir"), f"must be a folder, got {shown(folder)}, which does not exist")
            lines[file.line(problem, assignment)] = None
        for split, path in spec.task.files.items():
            try:
                files_of(path)
            except ValueError as error:
                lines[file.line(Violation(("task", "data", split), f"cannot be used: {error}"), assignment)] = None
    if lines:
        raise InvalidSpecError(list(lines))


def _super_network_problems(file: StudyFile, search: Search, assignment: Assignment, spec: TrialSpec) -> Iterator[str]:
    """Problems of a trial under a search that needs a super-network, and perhaps its patterns at some levels."""
    from rankopt.allocators import ALLOCATORS
    from rankopt.allocators.build import build_allocator

    if not search.super_network:
        return
    allocator = build_allocator(spec)
    if not allocator.trains_super_network():
        able = ", ".join(name for name, kind in ALLOCATORS.items() if kind.trains_super_network())
        text = f"must be an allocator that trains a super-network ({able}) under the search "
        text += f"{file.study.search.name!r}, got {spec.method.name!r}"
        yield file.line(Violation(("allocator", "name"), text), assignment)
        return
    try:
        search.check_levels(spec, allocator.levels)
    except ValueError as error:
        problem = violation_of(str(error))
        yield file.at(problem.location, problem.message)


def _hidden_problems(file: StudyFile) -> Iterator[str]:
    """Problems of the base that no trial shows, because a dimension replaces the value."""
    from rankopt.allocators import ALLOCATORS
    from rankopt.tuners import TUNERS

    yield from file.hidden_problems()
    replaced = {path for dimension in file.study.space for path in paths_of(dimension)}
    tables: dict[str, Any] = {"task": TASKS, "allocator": ALLOCATORS, "tuner": TUNERS}
    for kind, table in tables.items():
        given = file.study.base.get(kind)
        if not isinstance(given, dict) or not isinstance(name := given.get("name"), str):
            continue
        hidden = kind in replaced or f"{kind}.name" in replaced
        if hidden and name not in table and not (kind == "task" and given.get("data")):
            yield file.at(("base", kind, "name"), f"must be a known {kind}, got {shown(name)}{nearest(name, table)}")
        elif kind in replaced and kind != "task":  # otherwise, the options are those of the names in the space
            options = {key: value for key, value in given.items() if key != "name"}
            for problem in check_options(table[name], options, "base", kind):
                yield file.at(problem.location, problem.message)


def validated(spec: TrialSpec) -> TrialSpec:
    """A trial in canonical form: options of its allocator and tuners at their defaults are dropped, tuners are sorted,
    and PEFT's configuration stands in place of its file's path, so that none of these changes the trial's key.

    Raises:
        InvalidTrialError: an unknown task, allocator or tuner, or an invalid option.
    """
    from rankopt.allocators import ALLOCATORS
    from rankopt.allocators.build import build_allocator
    from rankopt.tuners import TUNERS
    from rankopt.tuners.build import build_tuners

    found = list(_unknown_names(spec, ALLOCATORS, TUNERS)) or [
        problem for location, tuner in _located(spec) for problem in _tuner_problems(TUNERS, tuner, location)
    ]
    if not found and spec.allocator:
        found = check_options(ALLOCATORS[spec.allocator.name], spec.allocator.options, "allocator")
    if found:
        raise InvalidTrialError(found, structural=True)
    try:
        allocator, tuners = build_allocator(spec), build_tuners(spec)
    except ValueError as error:
        raise InvalidTrialError([violation_of(str(error))], structural=False) from None
    named = [TunerSpec(name=name, **_options(tuner)) for name, tuner in tuners.items()]
    changed: dict[str, Any] = {"tuner": named[0] if len(named) == 1 else tuple(named)}
    if spec.allocator:
        changed["allocator"] = AllocatorSpec(name=spec.allocator.name, **_options(allocator))
    return spec.model_copy(update=changed)


def _options(member: BaseModel) -> dict[str, Any]:
    return member.model_dump(mode="json", exclude_defaults=True)


def _located(spec: TrialSpec) -> Iterator[tuple[Location, TunerSpec]]:
    """The tuners of a trial with their location in it."""
    for number, tuner in enumerate(spec.tuners):
        yield ("tuner", number) if isinstance(spec.tuner, tuple) else ("tuner",), tuner


def _tuner_problems(tuners: dict[str, Any], tuner: TunerSpec, location: Location) -> Iterator[Violation]:
    for problem in check_options(tuners[tuner.name], tuner.options, "tuner"):
        yield Violation((*location, *problem.location[1:]), problem.message)


def _validate_search(file: StudyFile) -> None:
    """Refuse an unknown search, invalid options of the search or its pruner, and a space that the search cannot use."""
    spec = file.study.search
    if spec.name not in SEARCHES:
        raise InvalidSpecError(
            [
                file.at(
                    ("search", "name"), f"must be a known search, got {shown(spec.name)}{nearest(spec.name, SEARCHES)}"
                )
            ]
        )
    found = check_options(SEARCHES[spec.name], spec.options, "search")
    pruner = spec.options.get("pruner")
    if not found and pruner:
        options = {key: value for key, value in pruner.items() if key != "name"}
        found = check_options(PRUNERS[pruner["name"]], options, "search", "pruner") if pruner["name"] in PRUNERS else []
    if found:
        raise InvalidSpecError(file.at(problem.location, problem.message) for problem in found)
    try:
        build_search(file.study).check(file.study)
    except ValueError as error:
        problem = violation_of(str(error))
        raise InvalidSpecError([file.at(problem.location, problem.message)]) from None


def _unknown_names(spec: TrialSpec, allocators: dict[str, Any], tuners: dict[str, Any]) -> Iterator[Violation]:
    for root, task in spec.tasks.items():
        if task.data is not None:
            yield from _own_task_problems(task, root)
        elif task.name not in TASKS:
            hint = nearest(task.name, TASKS)
            text = f"must be a known task, got {shown(task.name)}{hint}; {root}.data names your own files"
            yield Violation((root, "name"), text)
    named: list[tuple[Location, str, Collection[str]]] = []
    named += [(("allocator", "name"), spec.allocator.name, allocators)] if spec.allocator else []
    named += [((*location, "name"), tuner.name, tuners) for location, tuner in _located(spec)]
    for path, name, table in named:
        if name not in table:
            yield Violation(path, f"must be a known {path[0]}, got {shown(name)}{nearest(name, table)}")


def _own_task_problems(task: TaskSpec, root: str) -> Iterator[Violation]:
    """What is wrong with a user's own task, as far as it can be told without its data."""
    if task.name in TASKS:
        text = f"must not be a registered task where {root}.data is given, got {shown(task.name)}; choose another name"
        yield Violation((root, "name"), text)
    known = metrics_of(str(task.problem))
    for index, name in enumerate(task.metrics):
        if name not in known:
            text = f"must be a metric of {task.problem}, got {shown(name)}{nearest(name, known)}"
            yield Violation((root, "metrics", index), text)
    for field, listed in (("metrics", task.metrics), ("labels", task.labels)):
        if (twice := first_repeated(listed)) is not None:
            yield Violation((root, field, twice), f"must list distinct values, got {shown(listed[twice])} twice")
    for name in ("labels", "class_weights"):
        if task.problem != "classification" and getattr(task, name):
            yield Violation(("task", name), f"is for a classification, and task.problem is {task.problem}: remove it")
