"""Stored predictions by key, and none where they are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rankopt.study.opening import open_study
from rankopt.study.predictions import stored_predictions

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def test_of_a_study_that_was_run(finished: tuple[Path, Any]) -> None:
    """Every trial has its own; an unknown key has none."""
    store, _ = open_study("tiny", None, finished[0] / "runs")
    read = stored_predictions(store)
    found = [read(result.key) for result in store.results()]
    assert all(data and data.startswith(b"PK") for data in found)
    assert len(set(found)) == 4
    assert read("0" * 12) is None
