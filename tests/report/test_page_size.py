"""How large pages are: 3 MB for 2,000 trials, 1.5 MB for 100."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import large_study
import pandas as pd
import pytest

from rankopt.core.study_spec import StudySpec
from rankopt.report import write_report
from rankopt.study.results_merge import merge

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")]


@pytest.mark.parametrize(("trials", "megabytes"), [(100, 1.5), (2000, 3.0)])
@pytest.mark.parametrize("kind", [large_study.grid, large_study.search])
def test_a_page_stays_small(
    kind: Callable[[int], StudySpec], trials: int, megabytes: float, tmp_path: Path
) -> None:  # fmt: skip
    """Every trial is in the data; every budget of a grid has its rank patterns and intervals over examples."""
    spec = kind(trials)
    found = merge(large_study.entries(spec)).stored()
    page = write_report(spec, found.results, tmp_path, search=found.search)
    assert page.stat().st_size < megabytes * 1e6
    data = pd.read_csv(tmp_path / "data.csv")
    assert data["key"].nunique() == len(found.results) >= trials
    if spec.listed:
        assert pd.read_csv(tmp_path / "comparisons.csv")["examples"].notna().all()
        budgets = len(spec.space["budget.mean_rank"])
        assert len(list(tmp_path.glob("figures/ranks-*.svg"))) == 2 * budgets
