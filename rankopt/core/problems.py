"""What is wrong with a spec, in one line each: path, rule, value, and the nearest valid name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError

Path = tuple[str | int, ...]


class Problem(NamedTuple):
    """One violated rule.

    Attributes:
        path: keys and indices that lead to the value.
        message: the rule and the value.
    """

    path: Path
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.path)} {self.message}" if self.path else self.message


class InvalidSpecError(ValueError):
    """A spec that breaks rules; prints one line per problem."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = list(dict.fromkeys(lines))
        super().__init__(self.lines)  # as it was called, so that it can be pickled

    def __str__(self) -> str:
        return "\n".join(self.lines)


def dotted(path: Path) -> str:
    """A path as people write it.

    Example:
        >>> dotted(("space", "allocator", 1, "name"))
        'space.allocator[1].name'
    """
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing.

    Example:
        >>> first_line(ValueError("bad\\nworse")), first_line(EOFError())
        ('bad', 'EOFError')
    """
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def nearest(name: str, valid: Iterable[str]) -> str:
    """A suggestion to append to a message: the closest valid name, or the valid names, a dozen at most.

    Example:
        >>> nearest("unifrom", ["uniform", "ramp"])
        "; did you mean 'uniform'?"
    """
    names = list(valid)
    close = difflib.get_close_matches(name, names, n=1)
    more = f" and {len(names) - 12} more" if len(names) > 13 else ""
    return f"; did you mean {close[0]!r}?" if close else f"; valid: {', '.join(names[:12] if more else names)}{more}"


def problems(error: ValidationError, kind: type[BaseModel]) -> list[Problem]:
    """A pydantic error as problems.

    Args:
        error: raised while decoding a `kind`.
        kind: the model that was decoded, for the names of its fields.
    """
    return [_problem(entry, kind) for entry in error.errors(include_url=False)]


def _problem(entry: Any, kind: type[BaseModel]) -> Problem:
    path, message = _path(entry["loc"]), _message(entry, kind)
    return Problem(path, message) if path else placed(message)


def placed(message: str) -> Problem:
    """A message that names its own field first, as a problem there.

    Example:
        >>> placed("budget.mean_rank must be at most 16, got 40").path
        ('budget', 'mean_rank')
        >>> placed("model.target_modules 'qeury' matches no linear map").path
        ('model', 'target_modules')
    """
    named = re.match(r"([a-z_]+(?:\.[a-z_]+)+|[a-z_]+(?= must )) (.*)", message)
    return Problem(tuple(named[1].split(".")), named[2]) if named else Problem((), message)


def _message(entry: Any, kind: type[BaseModel]) -> str:
    match entry["type"]:
        case "extra_forbidden":
            *parents, name = entry["loc"]
            return f"is no known field{nearest(str(name), _fields(kind, parents))}"
        case "missing":
            return "is required"
        case "value_error":
            text = str(entry["ctx"]["error"])
            return text if re.match(r"[a-z_.]+ must ", text) else f"is not valid: {text}"
        case "literal_error":
            expected = entry["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
            return f"must be one of {', '.join(expected)}, got {entry['input']!r}{_close(entry['input'], expected)}"
        case "too_short":
            return f"must have at least {entry['ctx']['min_length']} of them, got {entry['input']!r}"
        case "string_pattern_mismatch":
            return f"must match {entry['ctx']['pattern']}, got {entry['input']!r}"
        case _:
            rule = entry["msg"].removeprefix("Input should be ").removeprefix("a valid ")
            return f"must be {rule}, got {entry['input']!r}"


def _close(value: Any, expected: list[str]) -> str:
    close = difflib.get_close_matches(str(value), expected, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _path(loc: tuple[str | int, ...]) -> Path:
    """pydantic's location without the names of union members, which are no keys."""
    return tuple(part for part in loc if not (isinstance(part, str) and ("[" in part or part in _MEMBERS)))


_MEMBERS = {"IntRange", "FloatRange", "list", "str", "function-after", "function-before"}


def _fields(kind: type[BaseModel], parents: list[str | int]) -> list[str]:
    """The field names valid below a location."""
    current: Any = kind
    for parent in parents:
        if _is_model(current):
            field = current.model_fields.get(parent) if isinstance(parent, str) else None
            if field is None:
                continue
            current = field.annotation
        below = _models(current)
        current = next((one for one in below if one.__name__ == parent or len(below) == 1), current)
    return [field.alias or name for name, field in current.model_fields.items()] if _is_model(current) else []


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation, however deep."""
    if _is_model(annotation):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
