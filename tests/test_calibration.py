"""The calibration itself: null studies of one seed have no verdict, real effects have one, and rates are small."""

from __future__ import annotations

from dataclasses import replace

import calibration
import numpy as np
import pytest


@pytest.mark.parametrize("name", ["3 seeds", "3 seeds, a third collapsed", "3 seeds, 40 examples"])
def test_few_null_studies_have_a_verdict(name: str) -> None:
    """`python tests/calibration.py` simulates 1,000 studies of every shape; this is a quick look at three."""
    assert calibration.rate(calibration.SHAPES[name], 40) <= 0.15


def test_intervals_over_other_examples_seldom_exclude_zero() -> None:
    assert calibration.other_examples(3, 20) <= 0.15


def test_one_seed_gives_no_verdict() -> None:
    assert calibration.rate(replace(calibration.SHAPES["3 seeds"], seeds=1), 5) == 0


def test_a_real_difference_gives_one() -> None:
    def shifted(random: np.random.Generator, allocator: int, seeds: int) -> np.ndarray:
        return random.normal(0.6 + 0.2 * (allocator == 1), 0.01, seeds)

    assert calibration.rate(replace(calibration.SHAPES["5 seeds"], noise=shifted), 10) == 1
