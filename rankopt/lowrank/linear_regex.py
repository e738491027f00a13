"""Regular expressions over module names that come from files: matched in linear time, whoever wrote them."""

from __future__ import annotations

import re

NAME = re.compile(r"\^?(?:[\w.-]|\\[.-])*")
"""A module's name or its end, escaped or not: most patterns are no more, and `re` is fastest there."""


def linear_time_pattern(pattern: str) -> str:
    r"""The pattern, if it is a regular expression that PEFT accepts as a key and that needs no backtracking.

    Raises:
        ValueError: with the reason alone.
    Example:
        >>> linear_time_pattern(r"layers\.[01]\.mlp\.(up|down)_proj") and linear_time_pattern(".*query")
        '.*query'
        >>> linear_time_pattern("(?=a)b")
        Traceback (most recent call last):
        ValueError: only what matches in linear time is accepted: no look-around, no reference back, no huge repetition
    """
    try:
        re.compile(pattern)
        re.compile(_ending(pattern))
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(str(error)) from None
    try:
        matches(pattern, "")
    except ValueError:
        raise ValueError(
            "only what matches in linear time is accepted: no look-around, no reference back, no huge repetition"
        ) from None
    return pattern


def ends(pattern: str, name: str) -> bool:
    """PEFT's rule for the keys of `rank_pattern`: whether the pattern matches the end of a name, from a dot on.

    Example:
        >>> ends("value", "layer.1.value"), ends("alue", "layer.1.value"), ends("(a|aa|a.)*b", "a" * 60)
        (True, False, False)
    """
    return bool(re.match(_ending(pattern), name)) if NAME.fullmatch(pattern) else matches(_ending(pattern), name)


def matches(pattern: str, name: str) -> bool:
    """Whether the pattern matches the whole name.

    Raises:
        ValueError: it is none that RE2 knows.
    """
    from pyarrow import compute, scalar  # type: ignore[import-untyped]  # slow to import; its engine is RE2

    return bool(compute.match_substring_regex(scalar(name), f"^(?:{pattern})$").as_py())


def _ending(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"
