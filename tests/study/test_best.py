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
    """The front has the highest search score of all; a budget bounds the parameters; a pattern belongs to its row."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    store, spec = open_study("tiny", None, tmp_path / "runs")
    results = {result.key: result for result in store.results()}
    found = best_patterns(store, spec, None)
    assert found["search"].max() == max(r.score("search", p) for r in results.values() for p in r.points)
    for row in found.itertuples():
        point = next(point for point in results[row.key].points if point.label == row.point)
        assert row.pattern == dict(point.pattern)
        assert row.kept == point.kept
    limit = int(found["kept"].min())
    assert (best_patterns(store, spec, limit)["kept"] <= limit).all()
    with pytest.raises(ValueError, match="study 'tiny' has no complete trial within 1 parameters"):
        best_patterns(store, spec, 1)
