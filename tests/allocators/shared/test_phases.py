"""Phases given as numbers of steps or as shares of a training."""

from __future__ import annotations

import pytest

from rankopt.allocators.shared.phases import phases, steps_of


@pytest.mark.parametrize(("value", "steps"), [(0.0, 0), (0.25, 25), (0.999, 100), (1.0, 1), (7.0, 7)])
def test_shares_and_steps(value: float, steps: int) -> None:
    """Below 1 a share of 100 steps, rounded; from 1 on a number of steps."""
    assert steps_of(value, 100) == steps


def test_two_phases_leave_a_step() -> None:
    """Warm-up and final phase, with at least one step between them."""
    assert phases(0.1, 0.3, 100) == (10, 30)
    with pytest.raises(ValueError, match="warmup"):
        phases(60.0, 50.0, 100)
