"""The task protocol: every task of the table follows it, and naming tasks imports nothing heavy."""

from __future__ import annotations

import pytest
from fresh_process import python

from rankopt.tasks import TASKS
from rankopt.tasks.metrics import METRICS


@pytest.mark.parametrize("name", TASKS)
def test_every_row_of_the_table_is_sound(name: str) -> None:
    task = TASKS[name]
    assert task.name == name == name.lower()
    assert 1 <= len(task.columns) <= 2
    assert len(task.labels) != 1
    assert len(set(task.labels)) == len(task.labels)
    assert task.metrics
    assert set(task.metrics) <= METRICS.keys()
    assert task.reports
    assert "train" not in task.reports
    assert "label" not in task.columns


def test_listing_tasks_needs_no_heavy_library() -> None:
    heavy = "{'torch', 'transformers', 'datasets', 'sklearn', 'scipy', 'pandas'}"
    assert python(f"import sys, rankopt.tasks; print(sorted({heavy} & sys.modules.keys()))").strip() == "[]"
