"""A first line that is not a header, and headers that only look like one."""

from __future__ import annotations

import pytest

from rankopt.tasks.header import check_names, check_separator


@pytest.mark.parametrize(
    "columns",
    [
        {"great film": ["bad", "good", "poor", "fine"], "1": ["0", "1", "0", "1"]},
        {"negative": ["positive", "negative"] * 2, "dull": ["fine", "good", "nice", "dry"]},
        {"prompt one": ["prompt one"] * 4, "text": ["a", "b", "c", "d"]},
    ],
)
def test_a_row_in_place_of_the_header(columns: dict[str, list[str]]) -> None:
    with pytest.raises(ValueError, match="the first line must hold names, got '"):
        check_names(columns)


@pytest.mark.parametrize(
    "columns",
    [
        {"0": ["bad", "good", "poor", "fine"], "1": ["0", "1", "0", "1"]},  # written by pandas
        {"text": ["text", "good", "poor", "fine"], "label": ["0", "1", "0", "1"]},  # a text that says "text"
        {"text": ["a", "b"], "label": ["1", "0"]},
    ],
)
def test_a_header(columns: dict[str, list[str]]) -> None:
    check_names(columns)


def test_separators() -> None:
    check_separator(["text"], ",")
    check_separator(["a;b", "c"], ",")
    with pytest.raises(ValueError, match="separated by vertical bars: save it separated by commas"):
        check_separator(["a|b"], ",")
