"""Read a study file into a `StudySpec`, or say on one line per problem what is wrong and where."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rankopt.core.data_files import with_absolute_files
from rankopt.core.errors import FieldError, InvalidSpecError, Location, Violation, cut, dotted, shown, violations
from rankopt.core.path import paths_of, split_path, with_path
from rankopt.core.space import Assignment, could_be, dimensions, examples
from rankopt.core.spec import decode
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.core.yaml import Document, parse_value

TABLES = ("space", "repeat", "tune")
"""Fields of a study whose keys are dotted paths of a trial."""

ROWS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".xlsx", ".xls", ".gz", ".bz2", ".xz")
"""Suffixes of data files, which are sometimes given in place of a study."""
COMBINATIONS = 100_000
"""Trials that a study without `search.trials` may have; each of them is validated before the first one runs."""


class StudyFile:
    """A study file with overrides applied; every trial that it describes is valid.

    Args:
        path: a YAML file.
        overrides: texts `dotted.path=value`; the path of a field of the study, or of a trial (with or without `base.`).
    Attributes:
        study: the decoded study.
    Raises:
        InvalidSpecError: one line per problem with file, line number, dotted path, rule and value.
    """

    def __init__(self, path: Path, overrides: Iterable[str] = ()) -> None:
        if Path(path).suffix.lower() in ROWS:
            raise InvalidSpecError([f"{path} has rows, not a study: rankopt init --data {path} writes a study of them"])
        try:
            self.document = Document(path)
        except ValueError as error:
            raise InvalidSpecError([str(error)]) from None
        self.overridden: dict[Location, str] = {}  # location -> the override that set it
        data = self.document.data
        for text in overrides:
            data = self._override(data, text)
        self.study = with_absolute_files(self._decode(data), Path(path).parent)
        self._refuse_too_many()
        for number, assignment in enumerate(self.assignments()):
            try:
                self.study.trial(assignment)
            except ValidationError as error:
                if number and self.sampled and not any(entry["loc"] for entry in error.errors(include_url=False)):
                    continue  # fields that contradict each other at this point only: the search records a failed trial
                raise InvalidSpecError(self.line(p, assignment) for p in violations(error, TrialSpec)) from None
            except FieldError as error:
                raise InvalidSpecError([self.at(("base", *error.location), error.message)]) from None

    @property
    def sampled(self) -> bool:
        """Whether a search proposes trials, so that they are not all known beforehand."""
        return not self.study.listed or not self._all_lists

    @property
    def _all_lists(self) -> bool:
        space = self.study.space
        return all(name in space and isinstance(values, list) for name, values in dimensions(space).items())

    def assignments(self) -> Iterator[Assignment]:
        """The points of the space to validate.

        All points of a grid. For a search, points with every listed value and both ends of every range, each at every
        combination of `repeat`.
        """
        if self.sampled:
            for point, repeat in itertools.product(examples(self.study.space), self.study.repeats()):
                yield {**point, **repeat}
        else:
            yield from self.study.assignments()

    def line(self, problem: Violation, assignment: Assignment) -> str:
        """A problem of the trial at `assignment` as one line, with the line number of the wrong value in the file."""
        location: Location = ("base", *problem.location)
        for path, value in assignment.items():
            together = paths_of(path)
            for index, path_ in enumerate(together):
                parts = tuple(split_path(path_))
                if problem.location[: len(parts)] == parts:
                    table = next(table for table in TABLES if path in getattr(self.study, table))
                    dimension = getattr(self.study, table)[path]
                    item: Location = (_index(dimension, value),) if isinstance(dimension, list) else ()
                    item += (index,) if len(together) > 1 else ()
                    location = (table, path, *item, *problem.location[len(parts) :])
        return self.at(location, problem.message)

    def hidden_problems(self) -> Iterator[str]:
        """Problems of base values that no trial uses, because a dimension replaces them; one line each."""
        try:
            decode(TrialSpec, self.study.base)
        except ValidationError as error:
            for entry, problem in zip(error.errors(include_url=False), violations(error, TrialSpec), strict=True):
                if entry["type"] not in ("missing", "value_error"):  # these depend on what the dimensions set
                    yield self.at(("base", *problem.location), problem.message)

    def at(self, location: Location, message: str) -> str:
        """A message about a value of the study as one line: the file and line number, or the override that set it."""
        location = self._with_dotted_keys(location)
        for prefix, text in self.overridden.items():
            inside = location[: len(prefix)] == prefix
            around = len(location) > 1 and prefix[: len(location)] == location  # the override broke an outer mapping
            if inside or around:
                return f"--set {cut(text)}: {dotted(location)} {message}"
        return f"{self.document.path}:{self.document.line(location)}: {Violation(location, message)}"

    def _with_dotted_keys(self, location: Location) -> Location:
        """Keys of `TABLES` are dotted paths: `space`, `training`, `lr` is `space`, `training.lr`."""
        table, *rest = location or ("",)
        if table in TABLES and isinstance(found := self.document.data.get(str(table)), dict):
            for end in range(len(rest), 1, -1):
                if (key := ".".join(map(str, rest[:end]))) in found:
                    return (table, key, *rest[end:])
        return location

    def _refuse_too_many(self) -> None:
        lists = [*self.study.space.values(), *self.study.tune.values()]
        count = math.prod(len(values) for values in lists if isinstance(values, list))
        if count > COMBINATIONS and not self.sampled:
            text = f"must have at most {COMBINATIONS:,} combinations, got {count:,}; list fewer values, or use a search"
            raise InvalidSpecError([self.at(("space",), f"{text} that proposes search.trials of them")])

    def _decode(self, data: dict[str, Any]) -> StudySpec:
        try:
            return decode(StudySpec, data)
        except ValidationError as error:
            raise InvalidSpecError(self.at(p.location, p.message) for p in violations(error, StudySpec)) from None

    def _override(self, data: dict[str, Any], text: str) -> dict[str, Any]:
        path, equals, value = text.partition("=")
        if not equals:
            raise InvalidSpecError([f"--set must be given path=value, got {shown(text)}"])
        try:
            parsed = parse_value(value)
            path = path.removeprefix("base.")  # base.seed and seed are the same field
            for part in ("base", *TABLES):
                if not isinstance(data.get(part) or {}, dict):
                    raise ValueError(f"{part} must be a mapping in {self.document.path}, got {shown(data[part])}")
            first = split_path(path)[0]
            if first in StudySpec.model_fields and first not in TrialSpec.model_fields:
                self.overridden[_study_location(path)] = text
                return _set_study(data, path, parsed)
            return self._set_trial(data, path, parsed, text)
        except ValueError as error:
            raise InvalidSpecError([f"--set {cut(text)}: {error}"]) from None

    def _set_trial(self, data: dict[str, Any], path: str, value: Any, text: str) -> dict[str, Any]:
        parts = split_path(path)
        tables = {table: dict(data[table] or {}) for table in TABLES if table in data}
        for table, listed in tables.items():
            kept = {}  # a fixed value removes the dimension of its field, and those of fields inside it
            for dimension, values in listed.items():
                together = paths_of(dimension)
                others = [split_path(part) for part in together]
                inside = [other[: len(parts)] == parts for other in others]
                within = any(parts[: len(o)] == o and (len(o) < len(parts) or len(together) > 1) for o in others)
                if within or (any(inside) and not all(inside)):
                    raise ValueError(f"{dimension} is a dimension of the {table}; set {table}.{dimension} instead")
                if not all(inside):
                    kept[dimension] = values
            if path in listed and isinstance(value, list):
                self.overridden[table, path] = text
                return {**data, table: {**listed, path: value}}
            tables[table] = kept
        self.overridden[("base", *parts)] = text
        return {**data, **tables, "base": with_path(data.get("base") or {}, path, value)}


def _study_location(path: str) -> Location:
    first, _, rest = path.partition(".")
    return (first, rest) if first in TABLES else tuple(split_path(path))


def _set_study(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    first, _, rest = path.partition(".")
    if first in TABLES and rest:  # the keys of a table are dotted paths themselves
        return {**data, first: {**(data.get(first) or {}), rest: value}}
    return with_path(data, path, value)


def _index(dimension: list[Any], value: Any) -> int:
    """The index in a dimension's list of the item that a value results from."""
    return next(index for index, item in enumerate(dimension) if item is value or could_be(value, item))


def check_options(model: type[BaseModel], options: dict[str, Any], *location: str) -> list[Violation]:
    """The problems of a registered member's own options, located below `location`."""
    outer = OUTER.get(location[0] if len(location) == 1 else "")
    misplaced = [name for name in options if outer and name in outer.model_fields and name not in model.model_fields]
    found = [
        Violation((*location, name), f"is not an option of {location[0]}: move it one level up, beside {location[0]}")
        for name in misplaced
    ]
    try:
        decode(model, {name: value for name, value in options.items() if name not in misplaced})
    except ValidationError as error:
        found += [Violation((*location, *p.location), p.message) for p in violations(error, model)]
    return found


OUTER: dict[str, type[BaseModel]] = {"search": StudySpec, "allocator": TrialSpec, "tuner": TrialSpec}
"""Field with registered members -> the model that contains it."""
