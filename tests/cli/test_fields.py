"""`list fields`: every field with type, default and meaning, from one source."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rankopt.allocators import ALLOCATORS
from rankopt.cli.fields import as_markdown, as_rows
from rankopt.core.study_spec import StudySpec
from rankopt.search import SEARCHES
from rankopt.search.pruners import PRUNERS

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


def test_every_field_has_a_type_a_default_and_a_meaning() -> None:
    """Of a study, a trial, and every allocator, search and pruner: a new field without a meaning fails here."""
    rows = as_rows()
    unexplained = [f"{row['group']}: {row['field']}" for row in rows if not all(row.values())]
    assert unexplained == []
    groups = {row["group"] for row in rows}
    for name, model in {f"allocator {name}": model for name, model in ALLOCATORS.items()}.items():
        assert not model.model_fields or name in groups
    fields = {(row["group"], row["field"]) for row in rows}
    assert {("study", name) for name in StudySpec.model_fields if name != "contents"} <= fields  # set by rankopt
    assert {("trial", "training.lr"), ("trial", "task.name"), ("trial", "budget.mean_rank")} <= fields
    assert ("allocator adalora", "beta1") in fields
    assert ("search tpe", "startup") in fields
    assert ("pruner median", "startup") in fields


def test_text_fits_into_80_columns(here: Rankopt, tmp_path: Path) -> None:
    text = here("list", "fields", cwd=tmp_path).stdout
    assert max(map(len, text.splitlines())) <= 80
    for row in as_rows():
        assert f"\n  {row['field']} (" in text
    for name in (*ALLOCATORS, *SEARCHES, *PRUNERS):
        assert name in text


def test_json(here: Rankopt, tmp_path: Path) -> None:
    rows = json.loads(here("list", "fields", "--json", cwd=tmp_path).stdout)
    assert {"group": "trial", "field": "training.batch_size", "type": "integer >= 1", "default": "32"}.items() <= next(
        row for row in rows if row["field"] == "training.batch_size"
    ).items()


def test_markdown_tables_have_four_cells(here: Rankopt, tmp_path: Path) -> None:
    text = here("list", "fields", "--markdown", cwd=tmp_path).stdout
    assert text == as_markdown() + "\n"
    for line in text.splitlines():
        assert not line.startswith("|") or line.replace("\\|", "").count("|") == 5
