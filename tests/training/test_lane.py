"""The lane of a trial that trains alone changes nothing."""

from __future__ import annotations

from typing import Any

from rankopt.training.lane import Lane
from rankopt.training.prepare import prepare


def test_passes_are_the_models_own(tiny_spec: Any) -> None:
    """The model's forward pass is not replaced, and the clock advances."""
    lane = Lane()
    before = lane.clock()
    net = prepare(tiny_spec(), lane).adapted.net
    lane.backward()
    assert "forward" not in vars(net)
    assert lane.clock() > before
