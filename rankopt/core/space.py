"""The dimensions of a search space, and how a point of it is settled, one decision at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from rankopt.core.path import paths_of
from rankopt.core.problems import problems

Finite = Annotated[float, Field(allow_inf_nan=False)]
R = TypeVar("R", "IntRange", "FloatRange")


class Inner(BaseModel):
    """Base of the dimensions that are written as a mapping."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class IntRange(Inner):
    """A dimension of integers, both ends included."""

    # lists make tuples here whichever way the study was read: the check of `space` sees it as Python, not as JSON
    bounds: Annotated[tuple[int, int], Field(strict=False)] = Field(alias="int")
    log: bool = False
    step: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _in_order(self) -> IntRange:
        low, high = self.bounds
        if self.step > 1 and (self.log or (high - low) % self.step):
            raise ValueError(f"a step must lead from low to high, without log, got {self.step} in [{low}, {high}]")
        return _ordered(self)


class FloatRange(Inner):
    """A dimension of real numbers."""

    bounds: Annotated[tuple[Finite, Finite], Field(strict=False)] = Field(alias="float")
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> FloatRange:
        return _ordered(self)


class Choice(Inner):
    """A list of values inside a listed value, where a plain list could be the field's own value."""

    values: list[Any] = Field(alias="choice", min_length=1)


def _ordered(dimension: R) -> R:
    low, high = dimension.bounds
    if low > high:
        raise ValueError(f"a range must go from low to high, got [{low}, {high}]")
    if dimension.log and low <= 0:
        raise ValueError(f"a log range must begin above 0, got [{low}, {high}]")
    return dimension


def _kind(value: Any) -> str:
    """Which of the three a dimension is, so that a mistake in one is told by its rules alone."""
    for kind, key in ((IntRange, "int"), (FloatRange, "float")):
        if isinstance(value, kind) or (isinstance(value, dict) and key in value):
            return kind.__name__
    return "list"


Dimension = Annotated[
    Annotated[list[Any], Tag("list")] | Annotated[IntRange, Tag("IntRange")] | Annotated[FloatRange, Tag("FloatRange")],
    Discriminator(_kind),
]
Assignment = dict[str, Any]
"""One point of a space: dimension -> value."""
Decide = Callable[[str, Dimension], Any]
"""Name and dimension -> a number of the range, or the index of a listed value."""

KINDS: dict[str, type[IntRange | FloatRange | Choice]] = {"int": IntRange, "float": FloatRange, "choice": Choice}


def inner_dimension(value: Any) -> Dimension | None:
    """The dimension that a part of a listed value stands for; None where it stands for itself.

    Raises:
        ValueError: it is written as a dimension and is none.

    Example:
        >>> inner_dimension({"choice": [0.1, 0.3]}), inner_dimension({"*.query": 2})
        ([0.1, 0.3], None)
    """
    kinds = [kind for kind in KINDS if isinstance(value, dict) and kind in value]
    if not kinds:
        return None
    try:
        dimension = KINDS[kinds[0]].model_validate(value)
    except ValidationError as error:
        raise ValueError(f"{value!r} is no dimension: {problems(error, KINDS[kinds[0]])[0]}") from None
    return dimension.values if isinstance(dimension, Choice) else dimension


def settle(space: Mapping[str, Dimension], decide: Decide) -> dict[str, Any]:
    """One point of a space: every dimension decided in the order of the file, an inner one only where it was chosen.

    An inner dimension is named by the value it stands in: `allocator[adalora].initial`.

    Args:
        space: dotted path, or several with commas between -> dimension.
        decide: asked once for every dimension that the point has.
    Returns:
        Dotted path -> value, as `StudySpec.trial` takes it.
    Example:
        >>> space = {"allocator": [{"name": "uniform"}, {"name": "ramp", "ratio": {"float": [1.0, 9.0]}}]}
        >>> settle(space, lambda name, dimension: 1 if isinstance(dimension, list) else 4.0)
        {'allocator': {'name': 'ramp', 'ratio': 4.0}}
    """
    return {name: _settled(name, dimension, decide) for name, dimension in space.items()}


def _settled(name: str, dimension: Dimension, decide: Decide) -> Any:
    decided = decide(name, dimension)
    if not isinstance(dimension, list):
        return decided
    value, tag = dimension[decided], _tag(dimension, decided)
    paths = paths_of(name)
    if len(paths) > 1:
        return [_filled(f"{path}[{tag}]", part, decide) for path, part in zip(paths, value, strict=True)]
    return _filled(f"{name}[{tag}]", value, decide)


def _filled(name: str, value: Any, decide: Decide) -> Any:
    """A listed value with its inner dimensions settled."""
    if (inner := inner_dimension(value)) is not None:
        return _settled(name, inner, decide)
    if isinstance(value, dict):
        return {key: _filled(f"{name}.{key}", part, decide) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(f"{name}[{index}]", part, decide) for index, part in enumerate(value)]
    return value


def _tag(values: list[Any], index: int) -> str:
    """What tells a listed value in names: its own name where no other one has it, else its index."""
    names = [_name(value) for value in values]
    own = names[index]
    return own if own and names.count(own) == 1 else str(index)


def _name(value: Any) -> str:
    first = value[0] if isinstance(value, list) and value else value
    return str(first.get("name", "")) if isinstance(first, dict) else ""


def examples(space: Mapping[str, Dimension], seen: dict[str, Dimension] | None = None) -> Iterator[dict[str, Any]]:
    """The first point of a space, then points that take one more decision: every listed value, both ends of a range.

    As many points as there are values, where all combinations would be their product.

    Args:
        space: see `settle`.
        seen: filled with every dimension met.
    Example:
        >>> [point["seed"] for point in examples({"lr": FloatRange(float=(0.1, 0.2)), "seed": [0, 1, 2]})]
        [0, 0, 1, 2]
    """
    seen = {} if seen is None else seen
    ahead: list[dict[str, Any]] = [{}]
    while ahead:
        taken = ahead.pop(0)

        def decide(name: str, dimension: Dimension, taken: dict[str, Any] = taken) -> Any:
            first, *others = range(len(dimension)) if isinstance(dimension, list) else dimension.bounds
            if name not in seen:
                seen[name] = dimension
                ahead.extend({**taken, name: other} for other in others)
            return taken.get(name, first)

        yield settle(space, decide)


def dimensions(space: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """All dimensions of a space by name, inner ones after the value that they stand in.

    Example:
        >>> list(dimensions({"allocator": [{"name": "ramp", "ratio": {"float": [1.0, 9.0]}}]}))
        ['allocator', 'allocator[ramp].ratio']
    """
    found: dict[str, Dimension] = {}
    for _ in examples(space, found):
        pass
    return found


def could_be(value: Any, listed: Any) -> bool:
    """Whether a listed value can be settled to a value, told apart by type too (1 is not True).

    Example:
        >>> could_be({"name": "ramp", "ratio": 4.0}, {"name": "ramp", "ratio": {"float": [1.0, 9.0]}})
        True
    """
    if inner_dimension(listed) is not None:
        return True
    if isinstance(listed, dict) and isinstance(value, dict):
        return listed.keys() == value.keys() and all(could_be(value[key], part) for key, part in listed.items())
    if isinstance(listed, list) and isinstance(value, list):
        return len(listed) == len(value) and all(map(could_be, value, listed))
    return (type(listed), listed) == (type(value), value)
