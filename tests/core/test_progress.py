"""What observers of a running trial are told."""

from __future__ import annotations

import pytest

from rankopt.core.progress import Progress


def test_a_value() -> None:
    """Frozen, equal by content, and without values or ranks unless they are given."""
    told = Progress(3, 10, "train")
    assert told == Progress(3, 10, "train", {}, {})
    with pytest.raises(AttributeError):
        told.step = 4  # type: ignore[misc]
