"""Messages: the location, the rule, the value found, and the nearest valid name; always short."""

from __future__ import annotations

import pickle
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rankopt.core.errors import (
    MOST,
    FieldError,
    InvalidSpecError,
    cut,
    dotted,
    nearest,
    problems_of,
    shown,
    violation_of,
    violations,
)


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    size: int = Field(ge=1, le=1000)
    unit: Literal["ranks", "parameters"] = "ranks"
    names: list[str] = Field(default_factory=list, max_length=2)


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    part: Part


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({}, "part is required"),
        ({"part": 3}, "part must be a mapping, got 3"),
        ({"part": {"size": 0}}, "part.size must be at least 1, got 0"),
        ({"part": {"size": 2000}}, "part.size must be at most 1,000, got 2000"),
        ({"part": {"size": "3"}}, "part.size must be a valid integer, got '3'"),
        ({"part": {"size": 1, "uint": "ranks"}}, "part.uint is not a known field; did you mean 'unit'?"),
        (
            {"part": {"size": 1, "unit": "rank"}},
            "part.unit must be one of ranks, parameters, got 'rank'; did you mean 'ranks'?",
        ),
        (
            {"part": {"size": 1, "names": ["a", "b", "c"]}},
            "part.names must have at most 2 items, got ['a', 'b', 'c']",
        ),
    ],
)
def test_one_line_per_problem(data: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(data)
    assert [str(problem) for problem in violations(caught.value, Whole)] == [line]


@pytest.mark.parametrize("value", ["x" * 3000, ["x"] * 3000, {f"k{i}": i for i in range(3000)}])
def test_values_are_shortened(value: Any) -> None:
    """However long a value, a name or a misspelling is, the line stays short."""
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate({"part": {"size": value, "unit": value}, "y" * 3000: 1})
    for problem in violations(caught.value, Whole):
        assert len(str(problem)) < 400
    assert len(shown(value)) < 150
    assert len(dotted(("space", "z" * 3000))) < 150


def test_cut_keeps_short_texts() -> None:
    assert cut("x" * 120) == "x" * 120
    assert cut("x" * 121).endswith("... (121 characters)")


@pytest.mark.parametrize("text", ["a\nb", "a\u2028b", "\x1b[31mred", "a\x00", "\u202eright to left"])
def test_keys_cannot_break_a_line_or_colour_a_terminal(text: str) -> None:
    assert cut(text).isprintable()
    assert dotted(("space", text)).isprintable()
    assert nearest("zzz", [text]).isprintable()


def test_nearest() -> None:
    assert nearest("adalor", ["uniform", "adalora"]) == "; did you mean 'adalora'?"
    assert nearest("zzz", ["uniform", "adalora"]) == "; valid: uniform, adalora"
    assert nearest("zzz", [f"name{i}" for i in range(40)]).endswith("name11 and 28 more")


def test_problem_of() -> None:
    assert violation_of("space must have a dimension").location == ("space",)
    assert violation_of("training.lr is wrong").location == ("training", "lr")
    assert violation_of("something else").location == ()


def test_errors_survive_pickling_and_are_at_most_twenty_lines() -> None:
    """Errors travel from a worker process; a study with thousands of problems prints a screenful."""
    error = InvalidSpecError([f"line {i}" for i in range(500)] * 2)
    assert pickle.loads(pickle.dumps(error)).lines == error.lines
    lines = str(error).splitlines()
    assert lines[0] == "line 0"
    assert lines[-1] == f"... and {500 - MOST} more problems"
    assert len(lines) == MOST + 1


def test_a_field_error_has_a_location() -> None:
    error = FieldError(("training", "lr"), "must be positive, got -1")
    assert str(error) == "training.lr must be positive, got -1"


def test_problems_of_a_pydantic_error_are_lines() -> None:
    """What reaches the command line has no line of pydantic's own."""
    with pytest.raises(ValidationError) as raised:
        Part.model_validate({"size": 0, "unit": "rank"})
    lines = problems_of(raised.value).splitlines()
    assert lines == [
        "size must be at least 1, got 0",
        "unit must be one of ranks, parameters, got 'rank'; did you mean 'ranks'?",
    ]
    assert problems_of(ValueError("x")) == "x"
