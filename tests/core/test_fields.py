"""The fields of specs in words, read from models and docstrings."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from rankopt.core.fields import field_rows, meanings, schema_of, summary, type_in_words


class Inside(BaseModel):
    """A model inside.

    Args:
        size: how large, in a
            second line too.
    """

    size: int = Field(3, ge=1, le=10**9)


class Base(BaseModel):
    """The base.

    Attributes:
        kind: of thing.
        never: a class variable, for example.
    """

    kind: Literal["a", "b", "c"] = "a"


class Model(Base):
    """Documented fields.

    More text, with a colon: here.

    Args:
        rates: one for each layer.
        inside: another model.
        name: required.
    Example:
        >>> kind: not_a_field
    """

    rates: dict[str, Annotated[float, Field(gt=0, lt=1)]] = {"*": 0.5}
    inside: Inside = Inside()
    name: str
    maybe: bool | None = None


def test_meanings_come_from_the_docstring() -> None:
    """From both names of the section, inherited, and only for fields."""
    assert summary(Model) == "Documented fields."
    assert meanings(Model) == {
        "kind": "of thing.",
        "rates": "one for each layer.",
        "inside": "another model.",
        "name": "required.",
    }
    assert meanings(Inside) == {"size": "how large, in a second line too."}


def test_rows() -> None:
    """Every field with type, default and meaning; fields of a model inside follow it."""
    assert [tuple(row) for row in field_rows(Model, "x.")] == [
        ("x.kind", "a, b or c", "a", "of thing."),
        ("x.rates", "mapping to number > 0 and < 1", "{*: 0.5}", "one for each layer."),
        ("x.inside", "mapping", "see below", "another model."),
        ("x.inside.size", "integer >= 1", "3", "how large, in a second line too."),
        ("x.name", "text", "required", "required."),
        ("x.maybe", "true or false", "none", ""),
    ]


def test_the_schema_has_the_meanings() -> None:
    schema = schema_of(Model)
    assert schema["properties"]["kind"]["description"] == "of thing."
    assert schema["$defs"]["Inside"]["properties"]["size"]["description"] == "how large, in a second line too."


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer"),
        ({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}, "text or list of text"),
        ({"const": "x"}, "x"),
        ({"type": "array"}, "list"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "number > 0 and <= 1"),
        ({}, "mapping"),
    ],
)
def test_types(field: dict[str, Any], words: str) -> None:
    assert type_in_words(field) == words
