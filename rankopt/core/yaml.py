"""Read YAML 1.2 files with the line of every value (`1e-4` is a number, `no` is a string)."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import TaggedScalar
from ruamel.yaml.composer import Composer, MaxDepthExceededError
from ruamel.yaml.constructor import ConstructorError, RoundTripConstructor
from ruamel.yaml.error import YAMLError
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.scalarbool import ScalarBoolean
from ruamel.yaml.scanner import RoundTripScanner

from rankopt.core.errors import Location, cut, first_line, shown
from rankopt.core.folders import new_file

LARGEST = 1_000_000
"""Bytes of a study file."""
MOST = 20_000
"""Values of a study file, without and with aliases expanded; ruamel.yaml reads about as many in a second."""
DEEPEST = 50
"""Levels of nesting."""
LONGEST_INTEGER = 1000
"""Bits of an integer; Python does not print more than about 14,000."""
TOO_MUCH = f"a study file must hold at most {MOST:,} values (aliases expanded), nested at most {DEEPEST} levels deep"


class Document:
    """A YAML file: its plain data, and the line of every value.

    Args:
        path: the file.
    Raises:
        ValueError: the file is missing, unreadable, too large or no YAML mapping; one line with file and line number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._root = _parse(_read(path))
        except _UnreadableError as error:
            raise ValueError(f"{path}{error.where}: {error}") from None
        if not isinstance(self._root, dict):
            raise ValueError(f"{path}:1: a study file must be a mapping, got {_type_name(self._root)}")
        self.data: dict[str, Any] = _plain(self._root, (), self._error, itertools.count())

    def line(self, location: Location) -> int:
        """The line number (from 1) of the value at a location, or of its nearest parent that exists."""
        node, line = self._root, 1
        for part in location:
            try:
                mark = node.lc.data[part]
                node = node[part]
            except (AttributeError, KeyError, IndexError, TypeError):
                break
            line = mark[0] + 1
        return line

    def _error(self, location: Location, message: str) -> ValueError:
        return ValueError(f"{self.path}:{self.line(location)}: {message}")


def parse_value(text: str) -> Any:
    """The plain value of a YAML text, such as the value of a command-line override.

    Raises:
        ValueError: one line that says what is wrong.
    Example:
        >>> parse_value("[1e-4, no]")
        [0.0001, 'no']
    """
    return _plain(_parse(text), (), lambda _, message: ValueError(message), itertools.count())


def _plain(node: Any, location: Location, error: Callable[[Location, str], ValueError], seen: Iterator[int]) -> Any:
    """Convert ruamel's round-trip nodes to ordinary Python values.

    Args:
        node: a node of the tree that ruamel read.
        location: where it is.
        error: makes an error from a location and a message.
        seen: counts the values.
    """
    if next(seen) >= MOST or len(location) > DEEPEST:
        raise error(location[:DEEPEST], TOO_MUCH)
    if isinstance(node, dict):
        plain: dict[str, Any] = {}
        for key, value in node.items():
            inside: Any = (*location, key)
            if isinstance(key, list | tuple | Mapping):
                raise error(inside, f"a key must be a string, got {_type_name(key)}")
            if str(key) in plain:
                raise error(inside, f"the key {shown(str(key))} appears twice")
            plain[str(key)] = _plain(value, inside, error, seen)
        return plain
    if isinstance(node, list):
        return [_plain(value, (*location, index), error, seen) for index, value in enumerate(node)]
    if isinstance(node, bool | ScalarBoolean):
        return bool(node)
    if node is None:
        return None
    if isinstance(node, str) and not node.isprintable() and any("\ud800" <= char <= "\udfff" for char in node):
        raise error(location, "a string must be Unicode text, got half of a surrogate pair")
    if isinstance(node, int) and node.bit_length() > LONGEST_INTEGER:
        raise error(location, f"an integer must have at most {LONGEST_INTEGER:,} bits, got {node.bit_length():,}")
    for kind in (int, float, str):
        if isinstance(node, kind):
            return kind(node)
    raise error(location, f"a value must be a number, string, boolean, list or mapping, got {_type_name(node)}")


class _UnreadableError(ValueError):
    """A text that is not YAML; `where` is `:line` or `:line:column` once known."""

    def __init__(self, message: str, line: int | None = None, column: int | None = None) -> None:
        self.where = "".join(f":{number}" for number in (line, column) if number is not None)
        super().__init__(message)


class _Scanner(RoundTripScanner):
    """Stops at the depth limit; otherwise 1,000 opening brackets are scanned, in quadratic time, before parsing."""

    def fetch_flow_collection_start(self, *args: Any, **options: Any) -> None:
        if self.flow_level > DEEPEST:
            raise MaxDepthExceededError(problem_mark=self.reader.get_mark())
        super().fetch_flow_collection_start(*args, **options)


class _Composer(Composer):
    """Stops at the limit of values, before the rest of the file is parsed."""

    values = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.values += 1
        if self.values > MOST:
            raise _UnreadableError(TOO_MUCH, self.parser.peek_event().start_mark.line + 1)
        return super().compose_node(parent, index)


class _Constructor(RoundTripConstructor):
    """Gives every error its line: `!!float abc`, `2026-13-45` and `[[]]: 1` fail in Python's own conversions."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        with _located(node):
            return super().construct_object(node, deep)

    def construct_mapping(self, node: Any, maptyp: Any, deep: bool = False) -> Any:  # type: ignore[override]
        with _located(node):
            return super().construct_mapping(node, maptyp, deep)


@contextmanager
def _located(node: Any) -> Iterator[None]:
    try:
        yield
    except YAMLError:
        raise
    except Exception as error:
        problem = first_line(error).partition("; use sys.")[0]  # without Python's advice to programmers
        raise ConstructorError(None, None, problem, node.start_mark) from None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise _UnreadableError(f"a study file must have at most {LARGEST:,} bytes", 1)
        return content.decode()
    except FileNotFoundError:
        raise _UnreadableError("no such file") from None
    except OSError as error:
        raise _UnreadableError(f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _UnreadableError(
            f"cannot be read: must be UTF-8, got the byte 0x{content[error.start]:02x}", line
        ) from None


def _parse(text: str) -> Any:
    yaml = YAML(typ="rt")
    yaml.max_depth = DEEPEST
    yaml.Scanner, yaml.Composer, yaml.Constructor = _Scanner, _Composer, _Constructor
    yaml.composer.warn_double_anchors = False  # YAML 1.2 allows an anchor to be redefined
    try:
        return yaml.load(text)
    except MaxDepthExceededError as error:
        raise _UnreadableError(f"must be nested at most {DEEPEST} levels deep", error.problem_mark.line + 1) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _UnreadableError(f"not valid YAML: {first_line(error)}", line) from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = cut(getattr(error, "problem", None) or first_line(error))
        where = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise _UnreadableError(f"not valid YAML: {problem}", *where) from None


def _type_name(node: Any) -> str:
    """The type of a value in plain English."""
    if node is None:
        return "nothing"
    names = {
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        list: "a list",
        tuple: "a list",
        Mapping: "a mapping",
        date: "a date",
        Set: "a set",
        TaggedScalar: "a value with a tag",
    }
    return next((name for kind, name in names.items() if isinstance(node, kind)), type(node).__name__)


def write(data: dict[str, Any], path: Path) -> None:
    """Write plain data atomically as YAML that `Document` reads back to the same data."""
    text = io.StringIO()
    YAML().dump(data, text)
    new_file(path, text.getvalue())
