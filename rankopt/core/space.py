"""The dimensions of a search space, and how one value is decided for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from rankopt.core.errors import FieldError, Location, violations
from rankopt.core.path import paths_of

Finite = Annotated[float, Field(allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]
"""An integer that JSON and databases store exactly."""
R = TypeVar("R", "IntRange", "FloatRange")


class Inner(BaseModel):
    """Base of the dimensions that are written as a mapping."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class IntRange(Inner):
    """A range of integers.

    Attributes:
        bounds: lowest and highest value, both included.
        log: sample on a logarithmic scale.
        step: distance between two values.
    """

    # not strict, because a list must become a tuple: `space` is validated as Python data, not as JSON
    bounds: Annotated[tuple[Whole, Whole], Field(strict=False)] = Field(alias="int")
    log: bool = False
    step: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _in_order(self) -> IntRange:
        low, high = self.bounds
        if self.step > 1 and self.log:
            raise ValueError("a range must have either a step or log, got both")
        if (high - low) % self.step:
            raise ValueError(f"a range must be a whole number of steps long, got step {self.step} in [{low}, {high}]")
        return _ordered(self)


class FloatRange(Inner):
    """A range of real numbers.

    Attributes:
        bounds: lowest and highest value, both included.
        log: sample on a logarithmic scale.
    """

    bounds: Annotated[tuple[Finite, Finite], Field(strict=False)] = Field(alias="float")
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> FloatRange:
        return _ordered(self)


class InnerChoice(Inner):
    """A list of values inside a listed value, where a plain list could be the field's own value.

    Attributes:
        values: the values to choose from.
    """

    values: list[Any] = Field(alias="choice", min_length=1)


def _ordered(dimension: R) -> R:
    low, high = dimension.bounds
    if low > high:
        raise ValueError(f"a range must go from low to high, got [{low}, {high}]")
    if dimension.log and low <= 0:
        raise ValueError(f"a range with log must start above 0, got [{low}, {high}]")
    return dimension


def _member(value: Any) -> str:
    """The member of the union that a value is meant as, so that only its rules are reported."""
    for model, key in ((IntRange, "int"), (FloatRange, "float")):
        if isinstance(value, model) or (isinstance(value, dict) and key in value):
            return model.__name__
    return "list"


Dimension = Annotated[
    Annotated[list[Any], Tag("list")] | Annotated[IntRange, Tag("IntRange")] | Annotated[FloatRange, Tag("FloatRange")],
    Discriminator(_member),
]
Assignment = dict[str, Any]
"""One point of a space: dimension -> value."""
Decide = Callable[[str, Dimension], Any]
"""Name and dimension -> a number of the range, or the index of a listed value."""

INNER: dict[str, type[IntRange | FloatRange | InnerChoice]] = {
    "int": IntRange,
    "float": FloatRange,
    "choice": InnerChoice,
}


def inner_dimension(value: Any) -> Dimension | None:
    """The dimension that a part of a listed value is written as; None for an ordinary value.

    Raises:
        FieldError: it is written as a dimension but breaks the dimension's rules.

    Example:
        >>> inner_dimension({"choice": [0.1, 0.3]}), inner_dimension({"*.query": 2})
        ([0.1, 0.3], None)
    """
    keys = [key for key in INNER if isinstance(value, dict) and key in value]
    if not keys:
        return None
    try:
        dimension = INNER[keys[0]].model_validate(value)
    except ValidationError as error:
        raise FieldError((), f"must be a valid dimension: {violations(error, INNER[keys[0]])[0]}") from None
    return dimension.values if isinstance(dimension, InnerChoice) else dimension


def check_inner(space: Mapping[str, Dimension]) -> None:
    """Refuse listed values that contain an invalid inner dimension.

    Raises:
        FieldError: with the location of the first one.
    """
    for name, dimension in space.items():
        for index, value in enumerate(dimension if isinstance(dimension, list) else ()):
            _check_inner(value, (name, index))


def _check_inner(value: Any, location: Location) -> None:
    try:
        inner = inner_dimension(value)
    except FieldError as error:
        raise FieldError(location, error.message) from None
    parts: Any = inner if inner is not None else value
    if isinstance(parts, dict | list):
        for key, part in parts.items() if isinstance(parts, dict) else enumerate(parts):
            _check_inner(part, (*location, *(("choice",) if inner is not None else ()), key))


def settle(space: Mapping[str, Dimension], decide: Decide) -> Assignment:
    """Decide a value for every dimension in the order of the file; inner ones only inside the chosen value.

    An inner dimension's name contains the value that holds it: `allocator[adalora].initial`.

    Args:
        space: dotted path, or several separated by commas -> dimension.
        decide: called once for every dimension that the point has.
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
    value, label = dimension[decided], _label(dimension, decided)
    paths = paths_of(name)
    if len(paths) > 1:
        return [_filled(f"{path}[{label}]", part, decide) for path, part in zip(paths, value, strict=True)]
    return _filled(f"{name}[{label}]", value, decide)


def _filled(name: str, value: Any, decide: Decide) -> Any:
    """A listed value with a value decided for each of its inner dimensions."""
    if (inner := inner_dimension(value)) is not None:
        return _settled(name, inner, decide)
    if isinstance(value, dict):
        return {key: _filled(f"{name}.{key}", part, decide) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(f"{name}[{index}]", part, decide) for index, part in enumerate(value)]
    return value


def _label(values: list[Any], index: int) -> str:
    """How names of inner dimensions refer to a listed value: by its own name if that is unique, else by its index."""
    names = [_name(value) for value in values]
    own = names[index]
    return own if own and names.count(own) == 1 else str(index)


def _name(value: Any) -> str:
    first = value[0] if isinstance(value, list) and value else value
    return str(first.get("name", "")) if isinstance(first, dict) else ""


def examples(space: Mapping[str, Dimension], seen: dict[str, Dimension] | None = None) -> Iterator[Assignment]:
    """Points that together contain every listed value and both ends of every range.

    Each point differs from an earlier one in one decision, so their number is the sum of the numbers of values, not the
    product.

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
    """All dimensions of a space by name, inner ones after the value that holds them.

    Example:
        >>> list(dimensions({"allocator": [{"name": "ramp", "ratio": {"float": [1.0, 9.0]}}]}))
        ['allocator', 'allocator[ramp].ratio']
    """
    found: dict[str, Dimension] = {}
    for _ in examples(space, found):
        pass
    return found


def could_be(value: Any, listed: Any) -> bool:
    """Whether a value could result from a listed value; types count too (1 is not True).

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
