"""Regular expressions over module names, matched in linear time: adapter files may come from anyone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

V = TypeVar("V")

FIXED = re.compile(r"\^?(?:[\w.-]|\\[.-])*")
"""Patterns in which every part matches exactly one character: module names and their endings, escaped or not."""

MOST = 1000
"""Patterns of a `FirstMatch` that have to be tried one by one."""


def linear_time_pattern(pattern: str) -> str:
    r"""Check that a pattern is a regular expression which PEFT accepts as a key and RE2 matches in linear time.

    Raises:
        ValueError: the reason alone.
    Example:
        >>> linear_time_pattern(r"layers\.[01]\.mlp\.(up|down)_proj") and linear_time_pattern(".*query")
        '.*query'
        >>> linear_time_pattern("(?=a)b")
        Traceback (most recent call last):
        ValueError: look-around, back-references and very large repetitions are not supported
    """
    if FIXED.fullmatch(pattern):
        return pattern
    try:
        re.compile(pattern)
        re.compile(_ending(pattern))
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None
    try:
        matches(pattern, "")
    except ValueError:
        raise ValueError("look-around, back-references and very large repetitions are not supported") from None
    return pattern


def matches(pattern: str, name: str) -> bool:
    """Whether the pattern matches the whole name.

    Raises:
        ValueError: RE2 does not support the pattern.
    """
    from pyarrow import compute, scalar  # slow to import; its engine is RE2

    return bool(compute.match_substring_regex(scalar(name), f"^(?:{pattern})$").as_py())


class FirstMatch(Generic[V]):
    r"""PEFT's lookup in `rank_pattern`: the value of the first pattern that matches the end of a name.

    PEFT tries `(.*\.)?(PATTERN)$` pattern by pattern. Here fixed patterns, which are nearly all, are looked up in hash
    tables: one table for every combination of length and wildcard positions (unescaped dots). So a lookup does not get
    slower with the number of patterns.

    Args:
        patterns: pattern -> value, in PEFT's order.
    Raises:
        ValueError: more than 1,000 patterns would have to be tried one by one.
    Example:
        >>> first = FirstMatch({"query": 4, r"^encoder\.1\.value": 2, "(key|value)": 1})
        >>> [first.get(f"encoder.1.{name}", 8) for name in ("query", "value", "key", "dense")]
        [4, 2, 1, 8]
    """

    def __init__(self, patterns: Mapping[str, V]) -> None:
        self._fixed: dict[tuple[bool, int, tuple[int, ...]], dict[str, tuple[int, V]]] = {}
        self._others: list[tuple[int, str, V]] = []
        for order, (pattern, value) in enumerate(patterns.items()):
            if FIXED.fullmatch(pattern):
                text = re.sub(r"\\?(.)", lambda part: "\n" if part[0] == "." else part[1], pattern.removeprefix("^"))
                wild = tuple(index for index, character in enumerate(text) if character == "\n")
                table = self._fixed.setdefault((pattern.startswith("^"), len(text), wild), {})
                table.setdefault(text, (order, value))
            else:
                self._others.append((order, pattern, value))
        if (found := len(self._fixed) + len(self._others)) > MOST:
            raise ValueError(f"must hold at most {MOST:,} different regular expressions, got {found:,}")

    def get(self, name: str, default: Any) -> V | Any:
        """The value for a name, else the default."""
        starts = [0, *(index + 1 for index, character in enumerate(name) if character == ".")]
        endings = {len(name) - start: name[start:] for start in reversed(starts)}
        best: tuple[int, Any] | None = None
        for (anchored, length, wild), table in self._fixed.items():
            ending = endings.get(length)
            if ending is None or (anchored and length != len(name)):
                continue
            masked = list(ending)
            for index in wild:
                masked[index] = "\n"
            hit = table.get("".join(masked))
            if hit and (best is None or hit[0] < best[0]):
                best = hit
        for order, pattern, value in self._others:
            if best is not None and order > best[0]:
                break
            if matches(_ending(pattern), name):
                return value
        return default if best is None else best[1]


def _ending(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"
