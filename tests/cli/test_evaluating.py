"""`rankopt evaluate`; `tests/api/test_evaluate.py` checks the numbers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankopt.training.trial import run_trial

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def adapter(tiny_spec: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trial")
    run_trial(tiny_spec(training__steps=4), folder)
    return folder / "adapter"


def test_evaluate(adapter: Path, here: Rankopt, tiny_model: Path, tiny_glue: Path, tmp_path: Path) -> None:
    """Two adapters side by side, as a table and as JSON."""
    words = ("evaluate", adapter, adapter, "--model", tiny_model, "--task", "sst2", "--data-dir", tiny_glue)
    done = here(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sst2: 24 examples, 95 % intervals over examples" in done.stdout
    assert "+0.0000" in done.stdout
    assert "(predicting the most frequent class)" in " ".join(done.stdout.split())
    rows = json.loads(here(*words, "--json", cwd=tmp_path).stdout)
    assert rows[0]["difference"] is None
    assert (rows[1]["difference"], rows[1]["score"]) == (0.0, rows[0]["score"])


def test_own_rows(adapter: Path, here: Rankopt, tiny_model: Path, tiny_glue: Path, tmp_path: Path) -> None:
    """`--data` takes a file, and `--text` and `--label` name its columns."""
    import pandas as pd

    pd.read_parquet(tiny_glue / "sst2" / "validation.parquet").to_csv(tmp_path / "dev.csv", index=False)
    words = ("evaluate", adapter, "--model", tiny_model, "--data", "dev.csv", "--text", "sentence", "--label", "label")
    done = here(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "dev: 24 examples" in done.stdout
    assert "note: dev has 2 classes in the order 0, 1" in done.stdout


def test_refused(here: Rankopt, tiny_model: Path, tmp_path: Path) -> None:
    """An unknown task is one line that names those that exist."""
    done = here("evaluate", "a", "--model", tiny_model, "--task", "sst3", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("rankopt: --task must be one of ")
    assert len(done.stderr.splitlines()) == 1
    done = here("evaluate", "a", "--model", tiny_model, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "rankopt: give one of --data and --task, got none\n")
