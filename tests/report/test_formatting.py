"""Numbers and names as text."""

from __future__ import annotations

import math

import pytest

from rankopt.report.formatting import compact, joined, metric_label, plural, span, with_error


@pytest.mark.parametrize(
    ("metric", "split", "words"),
    [
        ("f1", "search", "F1, search set"),
        ("accuracy", "validation_mismatched", "accuracy, validation set (mismatched)"),
        ("a new one", "test", "a new one, test set"),
    ],
)
def test_a_metric_names_its_split(metric: str, split: str, words: str) -> None:
    assert metric_label(metric, split) == words


def test_numbers() -> None:
    """Signs only where asked for, no error where none is known, a magnitude from 1,000 on."""
    assert with_error(0.5, 0.25, sign="+") == "+0.500 ± 0.250"
    assert with_error(-0.5, math.nan) == "-0.500"
    assert [compact(number) for number in (999, 1000, 2.5e9)] == ["999", "1k", "2.5G"]


def test_counts_and_lists() -> None:
    assert (plural(0, "seed"), span(3, 3, "seed"), span(1, 1000, "seed")) == ("0 seeds", "3 seeds", "1 to 1,000 seeds")
    assert (joined([]), joined(["a"]), joined(["a", "b"])) == ("none", "a", "a and b")
