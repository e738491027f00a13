"""The page on searches over a full grid is what its script writes from the committed results."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
GRID = ROOT / "reports" / "rank_grid"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("search_trainings", ROOT / "tests/bench/search_trainings.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_page_is_made_from_the_results() -> None:
    """Byte for byte."""
    assert script().page() == (GRID / "searches.md").read_text(encoding="utf-8")


def test_the_grid_is_full() -> None:
    """Every pattern has a training at both budgets, rates and seeds, and a score of every super-network."""
    module = script()
    rows = module.table()
    places = {module.place(row) for row in rows}
    assert len(places) == 54
    assert len({(module.place(row), row.configuration["training.lr"], row.seed) for row in rows}) == len(rows) == 216
    looks = [json.loads(line) for line in (GRID / "oneshot.jsonl").read_text(encoding="utf-8").splitlines()]
    for seed in range(3):
        seen = {json.dumps(look["place"]) for look in looks if look["seed"] == seed and "place" in look}
        assert seen == places


def test_the_numbers_about_places() -> None:
    """The variance between patterns and the F test, as scipy's one-way analysis has them after the seeds' means."""
    from scipy import stats

    module = script()
    rows = [row for row in module.table() if module.budget(row) == 2 and row.configuration["training.lr"] == 0.003]
    means = {seed: sum(row.report for row in rows if row.seed == seed) / 27 for seed in (0, 1)}
    groups = [[row.report - means[row.seed] for row in group] for group in module.by_place(rows).values()]
    one_way = stats.f_oneway(*groups)
    f = one_way.statistic * 26 / 27  # the seeds' mean takes one of the 27 degrees of freedom within patterns
    (line,) = (line for line in module.places(rows) if line.startswith("| 2 | 0.003 |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert float(cells[8]) == pytest.approx(f, abs=0.005)
    assert float(cells[9]) == pytest.approx(float(stats.f.sf(f, 26, 26)), rel=0.05)
