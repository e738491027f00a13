"""Patterns over module names give the same results as `re`, in linear time."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankopt.lowrank.linear_regex import FirstMatch, linear_time_pattern, matches

PARTS = st.sampled_from(
    ["a", "b", r"\.", ".", ".*", "[ab]", "(a|b.)", "(a|aa)", "b?", "a+", r"\w", r"\d{1,2}", "^", "1", r"\-"]
)
PATTERNS = st.lists(PARTS, max_size=5).map("".join)


def ends(pattern: str, name: str) -> bool:
    return bool(FirstMatch({pattern: True}).get(name, False))


@given(PATTERNS, st.text("ab1.", max_size=8))
def test_same_as_re(pattern: str, name: str) -> None:
    """Both engines agree on whole names and, by PEFT's rule, on endings of names."""
    try:
        linear_time_pattern(pattern)
    except ValueError:
        return
    assert matches(pattern, name) == bool(re.fullmatch(pattern, name))
    assert ends(pattern, name) == bool(re.match(rf"(.*\.)?({pattern})$", name))


@given(st.lists(PATTERNS, max_size=5, unique=True), st.text("ab1.-", max_size=8))
def test_the_first_match_wins(patterns: list[str], name: str) -> None:
    """Among fixed patterns (looked up) and others (tried), the first in order that PEFT's rule accepts."""
    accepted = {}
    for order, pattern in enumerate(patterns):
        try:
            accepted[linear_time_pattern(pattern)] = order
        except ValueError:
            continue
    expected = next((order for key, order in accepted.items() if re.match(rf"(.*\.)?({key})$", name)), None)
    assert FirstMatch(accepted).get(name, None) == expected


@pytest.mark.timeout(20)
def test_many_patterns_are_looked_up() -> None:
    """A lookup does not try 100,000 patterns one by one: 20,000 lookups take a second or two."""
    names = [f"model.layers.{layer}.mlp.experts.{expert}.up_proj" for layer in range(100) for expert in range(1000)]
    for escape in (re.escape, str):
        first = FirstMatch({f"^{escape(name)}": index for index, name in enumerate(names)})
        assert [first.get(name, None) for name in names[::10]] == list(range(0, len(names), 10))


def test_too_many_different_expressions() -> None:
    """Patterns that must be tried one by one are limited."""
    FirstMatch({f"(a|b){index}": 1 for index in range(1000)})
    with pytest.raises(ValueError, match="must hold at most 1,000 different regular expressions, got 1,001"):
        FirstMatch({f"(a|b){index}": 1 for index in range(1001)})


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "pattern", ["(a|aa|a.)*b", "(a+)+b", "(.*)" * 8 + "b", "(a|a)" * 40 + "b", "(a?){60}" * 3 + "b"]
)
def test_no_catastrophic_backtracking(pattern: str) -> None:
    """Patterns on which `re` takes exponential time."""
    assert not ends(linear_time_pattern(pattern), "a" * 500)
    assert not matches(pattern, ".".join("a" * 250))


@pytest.mark.parametrize("pattern", ["(", "(?i)q", r"(a)\1", "a(?!b)", "(a{1000}){1000}", "(" * 4000 + ")" * 4000])
def test_unsupported_patterns_are_refused_in_one_line(pattern: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the reason varies
        linear_time_pattern(pattern)
    assert type(caught.value) is ValueError
    assert len(str(caught.value).splitlines()) == 1
