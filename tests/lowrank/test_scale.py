"""The scale policies."""

from __future__ import annotations

import math

import pytest

from rankopt.lowrank.scale import Scale, ScalePolicy


@pytest.mark.parametrize(
    ("policy", "at_four_of_eight", "at_zero"),
    [("init", 2.0, 2.0), ("active", 4.0, 16.0), ("rs", 16 / math.sqrt(8), 16 / math.sqrt(8)), ("unit", 16.0, 16.0)],
)
def test_policies(policy: ScalePolicy, at_four_of_eight: float, at_zero: float) -> None:
    """Alpha 16, opened at rank 8: only "active" depends on the active rank, and rank 0 causes no division by zero."""
    scale = Scale(policy, 16.0)
    assert scale.value(8, 4) == pytest.approx(at_four_of_eight)
    assert scale.value(8, 0) == pytest.approx(at_zero)
    assert math.isfinite(scale.value(0, 0))
