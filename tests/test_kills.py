"""A few kills of the proof in `kills.py`, which takes hours in full."""

from __future__ import annotations

from pathlib import Path

import pytest
from kills import differences, prove


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["adalora", "pruner", "workers 2"])
def test_a_killed_study_is_the_uninterrupted_one(mode: str, tmp_path: Path) -> None:
    """SIGKILL at random moments changes no result, adapter or prediction, and leaves nothing behind."""
    assert prove(3, 0, [mode], tmp_path) == []


def test_differences_are_found() -> None:
    one = {"a": [1.0, {"b": b"x"}], "c": 2}
    assert list(differences(one, one, close=False)) == []
    assert len(list(differences(one, {"a": [1.0 + 1e-9, {"b": b"y"}], "c": 3}, close=False))) == 3
    assert list(differences({"a": 1.0}, {"a": 1.0 + 1e-9}, close=True)) == []
    assert len(list(differences({"a": 1.0}, {"a": 1.1}, close=True))) == 1
