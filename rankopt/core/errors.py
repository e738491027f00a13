"""What is wrong with a spec, one line per problem: location, rule, value found, and the nearest valid name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

from rankopt.core.text import printable

Location = tuple[str | int, ...]
"""Keys and indices that lead to a value."""
LONGEST = 120
"""Characters of a value or name that a message shows."""
MOST = 20
"""Problems of a spec that are listed."""


class Violation(NamedTuple):
    """A violated rule: where, and the rule with the value found."""

    location: Location
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.location)} {self.message}" if self.location else self.message


class FieldError(ValueError):
    """A value that breaks a rule, with its location; raised by a validator, the location is relative to its field.

    Args:
        location: keys and indices that lead to the value.
        message: the rule and the value found.
    """

    def __init__(self, location: Location, message: str) -> None:
        self.location, self.message = location, message
        super().__init__(str(Violation(location, message)))


class InvalidSpecError(ValueError):
    """A spec that breaks rules; its text has one line per problem, 20 at most."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(dict.fromkeys(lines))
        super().__init__(self.lines)  # the constructor's argument, so that pickle can rebuild it

    def __str__(self) -> str:
        more = [f"... and {len(self.lines) - MOST} more problems"] if len(self.lines) > MOST else []
        return "\n".join([*self.lines[:MOST], *more])


def cut(text: str) -> str:
    """Shorten a text for a message, and make it printable.

    Example:
        >>> cut("x" * 3000)[-24:]
        'xx... (3,000 characters)'
    """
    return printable(text if len(text) <= LONGEST else f"{text[: LONGEST - 20]}... ({len(text):,} characters)")


def shown(value: Any) -> str:
    """A value as a message shows it: its `repr`, shortened."""
    return cut(repr(value))


def dotted(location: Location) -> str:
    """A location in dotted form.

    Example:
        >>> dotted(("space", "allocator", 1, "name"))
        'space.allocator[1].name'
    """
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return cut(text)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its class name when the text is empty.

    Example:
        >>> first_line(ValueError("bad\\nworse")), first_line(EOFError())
        ('bad', 'EOFError')
    """
    return printable(next(iter(str(error).strip().splitlines()), type(error).__name__))


def nearest(name: str, valid: Iterable[str]) -> str:
    """A suggestion to append to a message: the closest valid name, or else the valid names (at most twelve).

    Example:
        >>> nearest("unifrom", ["uniform", "ramp"])
        "; did you mean 'uniform'?"
    """
    names = list(valid)
    if found := close_match(name, names):
        return f"; did you mean {found!r}?"
    more = f" and {len(names) - 12} more" if len(names) > 13 else ""
    return printable(f"; valid: {', '.join(names[:12] if more else names)}{more}")


def close_match(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that is most similar to a misspelt one, if any is similar."""
    return next(iter(difflib.get_close_matches(name[:LONGEST], list(valid), n=1)), None)


def violations(error: ValidationError, model: type[BaseModel]) -> list[Violation]:
    """The problems in a pydantic error.

    Args:
        error: raised while decoding a `model`.
        model: the decoded model, whose field names are suggested for misspelt ones.
    """
    return [_problem(entry, model) for entry in error.errors(include_url=False)]


def problems_of(error: ValueError) -> str:
    """The text of an error: of a pydantic error, one line per problem.

    Example:
        >>> problems_of(ValueError("seed must be at least 0, got -1"))
        'seed must be at least 0, got -1'
    """
    return "\n".join(map(str, violations(error, BaseModel))) if isinstance(error, ValidationError) else str(error)


def violation_of(message: str) -> Violation:
    """The problem that a message describes, when the message begins with the field's dotted path.

    Example:
        >>> violation_of("budget.mean_rank must be at most 16, got 40").location
        ('budget', 'mean_rank')
        >>> violation_of("model.target_modules 'qeury' matches no linear map").location
        ('model', 'target_modules')
    """
    named = re.match(r"([a-z_]+(?:\.[a-z_]+)+|[a-z_]+(?= must )) (.*)", message)
    return Violation(tuple(named[1].split(".")), named[2]) if named else Violation((), message)


def _problem(entry: Any, model: type[BaseModel]) -> Violation:
    location, cause = _location(entry["loc"]), entry.get("ctx", {}).get("error")
    if isinstance(cause, FieldError):
        return Violation((*location, *cause.location), cause.message)
    message = _message(entry, model)
    return Violation(location, message) if location else violation_of(message)


def _message(entry: Any, model: type[BaseModel]) -> str:
    value = shown(entry["input"])
    match entry["type"]:
        case "extra_forbidden":
            *parents, name = entry["loc"]
            return f"is not a known field{nearest(str(name), _fields(model, parents))}"
        case "missing":
            return "is required"
        case "value_error":
            text = str(entry["ctx"]["error"])
            return text if not entry["loc"] or re.match(r"[a-z_.]+ must ", text) else f"is not valid: {text}"
        case "literal_error":
            expected = entry["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            found = close_match(str(entry["input"]), expected)
            return f"must be one of {', '.join(expected)}, got {value}{f'; did you mean {found!r}?' if found else ''}"
        case "too_short":
            return f"must have at least {_items(entry['ctx']['min_length'])}, got {value}"
        case "too_long":
            return f"must have at most {_items(entry['ctx']['max_length'])}, got {value}"
        case "string_pattern_mismatch":
            return f"must match {entry['ctx']['pattern']}, got {value}"
        case "string_too_long":
            return f"must have at most {entry['ctx']['max_length']} characters, got {value}"
        case "greater_than_equal" | "less_than_equal":
            ((kind, bound),) = entry["ctx"].items()
            limit = f"{bound:,}" if isinstance(bound, int) else f"{bound:g}"
            return f"must be at {'least' if kind == 'ge' else 'most'} {limit}, got {value}"
        case "model_type" | "model_attributes_type" | "dict_type":
            text = entry["input"]
            named = isinstance(text, str) and text.isidentifier() and "name" in _fields(model, [*entry["loc"]])
            form = f", for example {{name: {text}}}" if named else ""
            return f"must be a mapping{form}, got {value}"
        case _:
            rule = entry["msg"].removeprefix("Input should be ")
            return f"must be {rule}, got {value}"


def _items(count: int) -> str:
    return f"{count} item" if count == 1 else f"{count} items"


def _location(loc: tuple[str | int, ...]) -> Location:
    """pydantic's location without the names of union members, which are no keys of the file."""
    return tuple(part for part in loc if not (isinstance(part, str) and ("[" in part or part in _MEMBERS)))


_MEMBERS = {"IntRange", "FloatRange", "list", "str", "function-after", "function-before"}


def _fields(model: type[BaseModel], parents: list[str | int]) -> list[str]:
    """The field names that are valid below a location."""
    current: Any = model
    for parent in parents:
        if _is_model(current):
            field = current.model_fields.get(parent) if isinstance(parent, str) else None
            if field is None:
                continue
            current = field.annotation
        below = list(dict.fromkeys(_models(current)))
        current = next((one for one in below if one.__name__ == parent or len(below) == 1), current)
    return [field.alias or name for name, field in current.model_fields.items()] if _is_model(current) else []


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models inside an annotation, at any depth."""
    if _is_model(annotation):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
