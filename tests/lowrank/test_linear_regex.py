"""Patterns over module names: what `re` says, without the time it may take."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankopt.lowrank.linear_regex import ends, linear_time_pattern, matches

PARTS = st.sampled_from(
    ["a", "b", r"\.", ".", ".*", "[ab]", "(a|b.)", "(a|aa)", "b?", "a+", r"\w", r"\d{1,2}", "^", "1"]
)


@given(st.lists(PARTS, max_size=5).map("".join), st.text("ab1.", max_size=8))
def test_as_re(pattern: str, name: str) -> None:
    """Both engines agree, over whole names and over ends of names by PEFT's rule."""
    try:
        linear_time_pattern(pattern)
    except ValueError:
        return
    assert matches(pattern, name) == bool(re.fullmatch(pattern, name))
    assert ends(pattern, name) == bool(re.match(rf"(.*\.)?({pattern})$", name))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "pattern", ["(a|aa|a.)*b", "(a+)+b", "(.*)" * 8 + "b", "(a|a)" * 40 + "b", "(a?){60}" * 3 + "b"]
)
def test_no_pattern_takes_for_ever(pattern: str) -> None:
    """Patterns on which `re` would try every way to split a name."""
    assert not ends(linear_time_pattern(pattern), "a" * 500)
    assert not matches(pattern, ".".join("a" * 250))


@pytest.mark.parametrize("pattern", ["(", "(?i)q", r"(a)\1", "a(?!b)", "(a{1000}){1000}", "(" * 4000 + ")" * 4000])
def test_what_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the reason varies
        linear_time_pattern(pattern)
    assert type(caught.value) is ValueError
    assert len(str(caught.value).splitlines()) == 1
