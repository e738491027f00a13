"""What a study and a trial are, as frozen values: unknown keys refused, every field validated at birth."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from rankopt.core.budget import Budget
from rankopt.core.path import fields_of, paths_of, refuse_overlap, split_path, with_path
from rankopt.core.space import Dimension, dimensions

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
T = TypeVar("T", bound=BaseModel)
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Spec(BaseModel):
    """Base of all specs. Strict: `"3"` is no number and `true` is no integer."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TaskSpec(Spec):
    """Which data a trial trains and is scored on.

    Attributes:
        name: a row of `rankopt list tasks`.
        data_dir: a local folder in the hub's layout, `<data_dir>/<task>/<split>.parquet`; the hub when absent.
        max_length: longer inputs are cut to this many tokens.
        train_examples: train on a fixed random subset of this size.
        search_examples: size of the split cut from the training set; 10 % of it, at most 2,000, when absent.
        protocol: "three-splits" never shows the official validation set to a search; "paper" selects on it, as the
            published numbers do, and trains on the whole training set. Reports say which was used.
    """

    name: str
    data_dir: str | None = None
    max_length: int = Field(128, ge=4)
    train_examples: int | None = Field(None, ge=1)
    search_examples: int | None = Field(None, ge=1)
    protocol: Literal["three-splits", "paper"] = "three-splits"


class ModelSpec(Spec):
    """Which frozen model is adapted, and where.

    Attributes:
        name: "mini" for the embedded encoder, a local folder, or a name on the hub.
        revision: a hub revision.
        target_modules: "all-linear" (every linear map of the blocks; head and pooler excluded), a list of module name
            endings, or a regular expression that matches the whole module name (no look-around).
        max_rank: physical rank of every adapted layer; no pattern goes beyond it.
        alpha: numerator of the adapter's scale s.
        scale: "published" takes the allocator's own policy; "init" s = alpha / initial rank; "active"
            s = alpha / active rank; "rs" s = alpha / sqrt(initial rank); "unit" s = alpha. A comparison at one fixed s
            uses "unit".
        dropout: on the adapter's input.
    """

    name: str
    revision: str | None = None
    target_modules: str | tuple[str, ...] = "all-linear"
    max_rank: int = Field(16, ge=1)
    alpha: Positive = 16.0
    scale: Literal["published", "init", "active", "rs", "unit"] = "published"
    dropout: Fraction = 0.0


class Named(BaseModel):
    """A registered name, and the member's own options beside it."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options given."""
        return dict(self.__pydantic_extra__ or {})


class AllocatorSpec(Named):
    """An allocator's registered name, and its own hyper-parameters beside it."""


class TrainingSpec(Spec):
    """How long and how a trial trains; AdamW throughout.

    Attributes:
        epochs: passes over the training set; ignored when `steps` is given.
        steps: optimiser steps.
        batch_size: examples per forward pass; times `accumulation` per optimiser step.
        lr: peak learning rate of the adapter.
        head_lr: peak learning rate of the head; the adapter's when absent.
        weight_decay: on the factors and the head's matrices, never on gates or biases.
        schedule: after the warm-up.
        warmup: linear warm-up, a fraction of the steps when below 1, else steps.
        clip: largest gradient norm; 0 does not clip.
        precision: "bf16" is autocast; parameters stay fp32. A CPU without instructions for it is slower with it.
        group_by_length: batches of similar length (less padding); the same batches for every allocator.
        eval_batch_size: examples per forward pass in evaluation; on a CPU more cost memory and are slower.
    """

    epochs: Positive = 3.0
    steps: int | None = Field(None, ge=1)
    batch_size: int = Field(32, ge=1)
    accumulation: int = Field(1, ge=1)
    lr: Positive = 5e-4
    head_lr: Positive | None = None
    weight_decay: NonNegative = 0.0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: NonNegative = 0.06
    clip: NonNegative = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    group_by_length: bool = True
    eval_batch_size: int = Field(32, ge=1)


class TrialSpec(Spec):
    """One training of one model on one task under one allocator and one budget.

    Example:
        >>> spec = decode(TrialSpec, {"task": {"name": "mini-cola"}, "allocator": {"name": "uniform"},
        ...                           "budget": {"mean_rank": 4}})
        >>> spec.model.max_rank, len(spec.key)
        (16, 12)
    """

    task: TaskSpec
    model: ModelSpec = ModelSpec(name="mini")
    allocator: AllocatorSpec
    budget: Budget | None = None
    training: TrainingSpec = TrainingSpec()
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _budget_can_be_met(self) -> TrialSpec:
        if self.budget and (self.budget.mean_rank or 0) > self.model.max_rank:
            raise ValueError(
                f"budget.mean_rank must be at most model.max_rank, got {self.budget.mean_rank:g} > "
                f"{self.model.max_rank}; raise model.max_rank or lower the budget"
            )
        return self

    @property
    def key(self) -> str:
        """A hash of what is not default: a new field whose default changes nothing keeps every old key."""
        return content_hash(self.plain)

    @property
    def plain(self) -> dict[str, Any]:
        """What is not default, as plain data: the form in which a trial is stored."""
        return self.model_dump(mode="json", exclude_defaults=True)


REPEATABLE = ("seed", "task", "training")


class SearchSpec(Named):
    """How trials are proposed: "grid" runs every combination of the space; see `rankopt list searches`."""

    name: str = "grid"


class StudySpec(Spec):
    """A study: a base trial, the dimensions in which trials differ from it, and how they are proposed.

    Attributes:
        name: also the name of the study's folder.
        base: fields of a trial; together with one value of every dimension they must make a valid trial.
        space: dotted path of a trial's field -> a list of values, `{int: [low, high]}` or `{float: [low, high]}`.
            Several paths, separated by commas, vary together: their list holds one list of values per combination.
            Inside a listed value a range, or `{choice: [...]}`, is a dimension of its own that exists only where that
            value is chosen: `{name: adalora, initial: {float: [1.1, 2.0]}}`.
        repeat: dotted path -> a list of values, written as in `space`. A search trains each of its proposals at every
            combination of them, one after another, and is told the mean score: what it finds is no seed's luck.
        search: who proposes.
        objectives: what is optimised, "score" (search split) and "parameters" (kept).
        constraints: what a search's best trials may cost at most: kept parameters.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    base: dict[str, Any]
    space: dict[str, Dimension] = Field(default_factory=dict)
    repeat: dict[str, list[Any]] = Field(default_factory=dict)
    search: SearchSpec = SearchSpec()
    objectives: dict[Literal["score", "parameters"], Literal["maximize", "minimize"]] = Field(
        min_length=1, default={"score": "maximize", "parameters": "minimize"}
    )
    constraints: dict[Literal["parameters"], Annotated[int, Field(ge=0)]] = Field(default_factory=dict)

    @field_validator("space", "repeat", mode="before")
    @classmethod
    def _dimension_kinds(cls, space: Any, info: ValidationInfo) -> Any:
        ranges = ", {int: [low, high]} or {float: [low, high]}" if info.field_name == "space" else ""
        if isinstance(space, dict):
            refuse_overlap(space)
        for path, value in space.items() if isinstance(space, dict) else ():
            together = paths_of(path)
            if isinstance(value, list):
                if not value:
                    raise ValueError(f"dimension {path!r} must not be an empty list")
                for item in value if len(together) > 1 else ():
                    if not isinstance(item, list) or len(item) != len(together):
                        raise ValueError(f"dimension {path!r} must list {len(together)} values at a time, got {item!r}")
            elif len(together) > 1:
                raise ValueError(
                    f"dimension {path!r} must be a list of values, because it varies several fields together"
                )
            elif not ranges or not isinstance(value, dict) or len({"int", "float"} & set(value)) != 1:
                raise ValueError(f"dimension {path!r} must be a list of values{ranges}, got {value!r}")
        return space

    @field_validator("space")
    @classmethod
    def _inner_dimensions(cls, space: dict[str, Dimension]) -> dict[str, Dimension]:
        dimensions(space)  # raises where one inside a listed value is wrong
        return space

    @field_validator("repeat")
    @classmethod
    def _repetitions(cls, repeat: dict[str, list[Any]], info: ValidationInfo) -> dict[str, list[Any]]:
        refuse_overlap([*info.data.get("space", {}), *repeat])
        for dimension, values in repeat.items():
            for path in paths_of(dimension):
                if split_path(path)[0] not in REPEATABLE:
                    raise ValueError(f"{path!r} must be a field of {', '.join(REPEATABLE)}: others are no repetition")
            if len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
                raise ValueError(f"{dimension!r} must list different values: one that comes twice would count twice")
        return repeat

    @field_validator("objectives")
    @classmethod
    def _sensible(cls, objectives: dict[str, str]) -> dict[str, str]:
        for name, direction in objectives.items():
            if direction != (wanted := "maximize" if name == "score" else "minimize"):
                raise ValueError(f"{name!r} must be to {wanted}, got {direction!r}")
        return objectives

    @property
    def listed(self) -> bool:
        """Whether every combination of the space is run; otherwise the search proposes `search.trials` trials."""
        return self.search.options.get("trials") is None

    def assignments(self) -> Iterator[dict[str, Any]]:
        """Every combination of a space of lists, the last dimension fastest: dotted path -> value."""
        yield from _combinations({path: values for path, values in self.space.items() if isinstance(values, list)})

    def repeats(self) -> list[dict[str, Any]]:
        """Where each proposal of a search is trained: dotted path -> value; an empty one without `repeat`."""
        return list(_combinations(self.repeat))

    def trainings(self, spec: TrialSpec) -> list[TrialSpec]:
        """A proposal at every repeat, in order."""
        return [decode(TrialSpec, _at(spec.plain, repeat)) for repeat in self.repeats()]

    def trial(self, assignment: dict[str, Any]) -> TrialSpec:
        """The trial at one point of the space."""
        return decode(TrialSpec, self.plain(assignment))

    def plain(self, assignment: dict[str, Any]) -> dict[str, Any]:
        """The same as plain data, which may be no valid trial."""
        return _at(self.base, assignment)


def _at(data: dict[str, Any], assignment: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's plain data with the fields that a point of a space decides."""
    for dimension, values in assignment.items():
        for path, value in fields_of(dimension, values):
            data = with_path(data, path, value)
    return data


def _combinations(lists: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*lists.values()):
        yield dict(zip(lists, values, strict=True))


def decode(kind: type[T], data: Any) -> T:
    """A spec from plain data, read as JSON would be (lists make tuples; strings never make numbers)."""
    return kind.model_validate_json(json.dumps(data))


def content_hash(data: Any) -> str:
    """12 hexadecimal digits of the SHA-256 of plain data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]
