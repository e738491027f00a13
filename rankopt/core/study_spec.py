"""What a study is, as a frozen value: a base trial, a space, and a search."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Annotated, Any, Literal, cast

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from rankopt.core.errors import FieldError, shown
from rankopt.core.path import fields_of, paths_of, refuse_overlap, split_path, with_path
from rankopt.core.space import Assignment, Dimension, check_inner, dimensions
from rankopt.core.spec import Named, Spec, content_hash, decode
from rankopt.core.task_spec import TaskSpec
from rankopt.core.trial_spec import TrialSpec

REPEATABLE = ("seed", "task", "training")
"""Fields of a trial that `repeat` may vary."""
TUNABLE = ("training", "model")
"""Fields of a trial that `tune` may vary."""
TUNING_SEED = 1_000_000
"""The seed of every tuning trial; a study with `tune` uses it for nothing else."""


class SearchSpec(Named):
    """A search's registered name, with its options beside it.

    Attributes:
        name: a search of `rankopt list searches`; "grid" runs every combination of the space.
    """

    name: str = "grid"


class WandbSpec(Spec):
    """Where W&B stores a study's runs.

    Attributes:
        project: W&B project; default: WANDB_PROJECT, else "rankopt".
        entity: W&B user or team; default: WANDB_ENTITY, else W&B's own default.
        tags: tags of every run; default: WANDB_TAGS.
    """

    project: str | None = Field(None, pattern=r"^[^/\\#?%:]+$", max_length=128)
    entity: str | None = Field(None, min_length=1)
    tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = ()


class StudySpec(Spec):
    """A study: a base trial, the dimensions in which trials differ from it, and the search that proposes them.

    Attributes:
        name: name of the study and of its folder: letters, digits, `.`, `_` and `-`.
        description: what the study asks; printed in its report.
        base: fields of a trial; with a value for every dimension of the space they must make a valid trial.
        space: dotted path of a trial's field -> a list of values, `{int: [low, high]}` or `{float: [low, high]}`.
            Paths separated by commas vary together: each item of their list is a list with one value per path.
            A range or `{choice: [...]}` inside a listed value is a dimension that exists only where that value is
            chosen: `{name: adalora, initial: {float: [1.1, 2.0]}}`.
        repeat: dotted path -> a list of values, written as in `space`. A search trains each proposal at every
            combination of them and uses the mean score, so that its result does not depend on one lucky seed.
        tune: dotted path of a field of `training` or `model` -> a list of values, in a comparison. Every configuration
            (all dimensions except `seed`) is trained at each combination of them, at a seed that is used for nothing
            else. The best one on the search split is then used at all seeds.
        search: how trials are proposed.
        objectives: what a search optimises: the `score` on the search split, `parameters: minimize` (kept adapter
            parameters), or both. The direction of `score` follows the task's metric: `minimize` for perplexity, loss
            and mean squared error, otherwise `maximize`.
        constraints: upper limit of the kept adapter parameters of a search's best trials.
        wandb: project, entity and tags of the study's W&B runs.
        contents: hashes of local files: "data" by `<data_dir>/<task>`, "files" by what `task.data` names, "model" by
            folder. Set by rankopt when the study is planned.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    description: str = ""
    base: dict[str, Any]
    space: dict[str, Dimension] = Field(default_factory=dict)
    repeat: dict[str, list[Any]] = Field(default_factory=dict)
    tune: dict[str, list[Any]] = Field(default_factory=dict)
    search: SearchSpec = SearchSpec()
    objectives: dict[Literal["score", "parameters"], Literal["maximize", "minimize"]] = Field(
        min_length=1, default={"score": "maximize", "parameters": "minimize"}
    )
    constraints: dict[Literal["parameters"], Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    wandb: WandbSpec = WandbSpec()
    contents: SkipJsonSchema[dict[Literal["data", "files", "model"], dict[str, str]]] = Field(default={})

    @field_validator("name")
    @classmethod
    def _no_file_name(cls, name: str) -> str:
        if name.lower().endswith((".yaml", ".yml")):
            raise FieldError((), f"must not end in .yaml or .yml, which commands read as a file, got {name!r}")
        return name

    @field_validator("space", "repeat", "tune", mode="before")
    @classmethod
    def _lists_and_ranges(cls, table: Any, info: ValidationInfo) -> Any:
        if isinstance(table, dict):
            refuse_overlap(table)
            ranges = ", {int: [low, high]} or {float: [low, high]}" if info.field_name == "space" else ""
            for dimension, values in table.items():
                _check_dimension(dimension, values, ranges)
        return table

    @field_validator("space")
    @classmethod
    def _inner_dimensions(cls, space: dict[str, Dimension]) -> dict[str, Dimension]:
        check_inner(space)
        return space

    @field_validator("repeat")
    @classmethod
    def _repetitions(cls, repeat: dict[str, list[Any]], info: ValidationInfo) -> dict[str, list[Any]]:
        refuse_overlap([*info.data.get("space", {}), *repeat])
        for dimension, values in repeat.items():
            for path in paths_of(dimension):
                if split_path(path)[0] not in REPEATABLE:
                    message = f"must not be repeated: repeat may only vary {', '.join(REPEATABLE)}, got {path!r}"
                    raise FieldError((dimension,), message)
            if (twice := first_repeated(values)) is not None:
                raise FieldError((dimension,), f"must list distinct values, got {shown(values[twice])} twice")
        return repeat

    @field_validator("tune")
    @classmethod
    def _tuned(cls, tune: dict[str, list[Any]], info: ValidationInfo) -> dict[str, list[Any]]:
        space = info.data.get("space", {})
        refuse_overlap([*space, *info.data.get("repeat", {}), *tune])
        for dimension, values in tune.items():
            for path in paths_of(dimension):
                if split_path(path)[0] not in TUNABLE:
                    message = f"must not be tuned: tune may only vary {', '.join(TUNABLE)}, got {path!r}"
                    raise FieldError((dimension,), message)
            if (twice := first_repeated(values)) is not None:
                raise FieldError((dimension,), f"must list distinct values, got {shown(values[twice])} twice")
        if tune and any("seed" in paths_of(dimension) and dimension != "seed" for dimension in space):
            raise FieldError((), "needs seed to be a dimension of its own in space, or no dimension")
        return tune

    @model_validator(mode="after")
    def _tuning(self) -> StudySpec:
        if not self.tune:
            return self
        if self.search.name != "grid":
            raise FieldError(("tune",), f"must be left out under the search {self.search.name!r}: it is for a grid")
        for index, seed in enumerate(self.seeds):
            if type(seed) is not int or seed < 0 or seed == TUNING_SEED:
                rule = f"must be an integer >= 0 other than {TUNING_SEED}, the seed of tune, got {shown(seed)}"
                raise FieldError(("space", "seed", index), rule)
        return self

    @field_validator("objectives")
    @classmethod
    def _directions(cls, objectives: dict[str, str]) -> dict[str, str]:
        for name, direction in objectives.items():
            if name == "parameters" and direction != "minimize":
                raise FieldError((name,), f"must be 'minimize', got {direction!r}")
        return objectives

    @property
    def listed(self) -> bool:
        """Whether every combination of the space is run; otherwise the search proposes `search.trials` trials."""
        return self.search.options.get("trials") is None

    @property
    def seeds(self) -> list[Any]:
        """The seeds of a comparison."""
        listed = self.space.get("seed")
        return listed if isinstance(listed, list) else [self.base.get("seed", 0)]

    @cached_property
    def varied_paths(self) -> list[str]:
        """The fields that dimensions with more than one value set, except those that the task decides.

        Example:
            >>> base = {"task": {"name": "rte"}, "allocator": {"name": "static"}}
            >>> space = {"task.name, training.steps": [["rte", 9], ["sst2", 8]], "seed": [0, 1], "model.alpha": [2.0]}
            >>> StudySpec(name="s", base=base, space=space).varied_paths
            ['task.name', 'seed']
        """
        varied: list[str] = []
        for name, dimension in {**self.space, **self.tune}.items():
            paths = paths_of(name)
            if not isinstance(dimension, list) or len(dimensions({name: dimension})) > 1:
                varied += paths
            elif len(dimension) > 1:
                tasks = [dict(fields_of(name, value)).get("task.name") for value in dimension]
                decides = len(paths) > 1 and None not in tasks and len({*tasks}) == len(tasks)
                varied += ["task.name"] if decides else paths
        return varied

    def assignments(self) -> Iterator[Assignment]:
        """Every combination of the lists of the space, the last dimension fastest: dotted path -> value.

        With `tune`, the tuning trials: every combination without the seeds, at every combination of the tuned values.
        """
        lists = {path: values for path, values in self.space.items() if isinstance(values, list)}
        if self.tune:
            lists = {**{path: values for path, values in lists.items() if path != "seed"}, **self.tune}
            lists |= {"seed": [TUNING_SEED]}
        yield from _combinations(lists)

    def tunings(self) -> list[Assignment]:
        """The combinations of the tuned values."""
        return list(_combinations(self.tune))

    def is_tuning(self, spec: Mapping[str, Any]) -> bool:
        """Whether a trial, as plain data, is one of the tuning trials, which no table of results counts."""
        return bool(self.tune) and spec.get("seed") == TUNING_SEED

    def at(self, spec: TrialSpec, assignment: Assignment) -> TrialSpec:
        """A trial with the fields that an assignment sets.

        The study does not know the folders of a trial from another machine: a hash stays unless its folder changes.
        """
        found = self.with_contents(decode(TrialSpec, _at(spec.plain, assignment)))
        kept = {kind: text for kind, text in spec.contents.items() if found.location(kind) == spec.location(kind)}
        return found.model_copy(update={"contents": kept | found.contents})

    def repeats(self) -> list[Assignment]:
        """The combinations of `repeat` at which a proposal is trained; one empty assignment without `repeat`."""
        return list(_combinations(self.repeat))

    def trainings(self, spec: TrialSpec) -> list[TrialSpec]:
        """A proposal's trial at every combination of `repeat`, in order."""
        return [self.at(spec, repeat) for repeat in self.repeats()]

    def trial(self, assignment: Assignment) -> TrialSpec:
        """The trial at one point of the space."""
        return self.with_contents(decode(TrialSpec, self.plain(assignment)))

    def plain(self, assignment: Assignment) -> dict[str, Any]:
        """The plain data of the trial at one point of the space, not validated."""
        return _at(self.base, assignment)

    def with_contents(self, spec: TrialSpec) -> TrialSpec:
        """A trial with the hashes of its local files."""
        found = {"data": self._data(spec.task), "model": self.contents.get("model", {}).get(spec.model.name)}
        if spec.retain is not None:
            found["retain"] = self._data(spec.retain.task)
        return spec.model_copy(update={"contents": {name: text for name, text in found.items() if text is not None}})

    def _data(self, task: TaskSpec) -> str | None:
        """The hash of a task's local files, if it has any."""
        files = {split: self.contents.get("files", {}).get(path) for split, path in task.files.items()}
        if files and all(files.values()):
            return content_hash(files)
        return self.contents.get("data", {}).get(f"{task.data_dir}/{task.name}")

    def portable(self) -> dict[str, Any]:
        """The study as plain data, with hashes in place of local files: equal wherever they are."""
        hashes: dict[str, Any] = {**self.contents.get("files", {}), **self.contents.get("model", {})}
        for location, text in self.contents.get("data", {}).items():
            folder, _, task = location.rpartition("/")
            hashes[folder] = {**hashes.get(folder, {}), task: text}
        return cast(
            dict[str, Any], _replaced(self.model_dump(mode="json", by_alias=True, exclude={"contents"}), hashes)
        )


def first_repeated(values: Iterable[Any]) -> int | None:
    """The index of the first value that equals an earlier one; None when all are distinct.

    Example:
        >>> first_repeated([{"a": 1, "b": 2}, 3, {"b": 2, "a": 1}]), first_repeated([1, True, "1"])
        (2, None)
    """
    seen: set[str] = set()
    for index, value in enumerate(values):
        text = json.dumps(value, sort_keys=True)
        if text in seen:
            return index
        seen.add(text)
    return None


def _check_dimension(dimension: str, values: Any, ranges: str) -> None:
    """Refuse values that do not suit a dimension.

    Args:
        dimension: its dotted path, or several separated by commas.
        values: what the file has for it.
        ranges: the other forms that are allowed, for the message; empty where only a list is.
    """
    together = len(paths_of(dimension))
    if isinstance(values, list):
        if not values:
            raise FieldError((dimension,), "must not be an empty list")
        for index, item in enumerate(values if together > 1 else ()):
            if not isinstance(item, list) or len(item) != together:
                raise FieldError((dimension, index), f"must be a list of {together} values, got {shown(item)}")
    elif together > 1:
        raise FieldError((dimension,), f"must be a list, each item a list of {together} values, got {shown(values)}")
    elif not ranges or not isinstance(values, dict) or len({"int", "float"} & set(values)) != 1:
        raise FieldError((dimension,), f"must be a list of values{ranges}, got {shown(values)}")


def _at(data: dict[str, Any], assignment: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's plain data with the fields that an assignment sets."""
    for dimension, values in assignment.items():
        for path, value in fields_of(dimension, values):
            data = with_path(data, path, value)
    return data


def _replaced(data: Any, values: Mapping[str, Any]) -> Any:
    """Plain data in which some strings are replaced."""
    if isinstance(data, dict):
        return {key: _replaced(item, values) for key, item in data.items()}
    if isinstance(data, list):
        return [_replaced(item, values) for item in data]
    return values.get(data, data) if isinstance(data, str) else data


def _combinations(lists: Mapping[str, list[Any]]) -> Iterator[Assignment]:
    for values in itertools.product(*lists.values()):
        yield dict(zip(lists, values, strict=True))
