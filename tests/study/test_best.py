"""The best patterns of a stored study."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from rankopt.study.best import best_patterns
from rankopt.study.opening import open_study

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def test_best_patterns(finished: tuple[Path, Any], tmp_path: Path) -> None:
    """Along the front, scores rise with the parameters; a budget bounds them; a pattern belongs to its row."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    store, spec = open_study("tiny", None, tmp_path / "runs")
    results = {result.key: result for result in store.results()}
    found = best_patterns(store, spec, None)
    assert found["kept"].is_monotonic_increasing
    assert found["search"].is_monotonic_increasing
    assert "gain" not in found
    for row in found.itertuples():
        point = next(point for point in results[row.key].points if point.label == row.point)
        assert row.pattern == dict(point.pattern)
        assert row.kept == point.kept
    limit = int(found["kept"].min())
    assert (best_patterns(store, spec, limit)["kept"] <= limit).all()
    with pytest.raises(ValueError, match="study 'tiny' has no complete trial within 1 parameters"):
        best_patterns(store, spec, 1)
