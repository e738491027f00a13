"""W&B's runs made again from the storage equal those that were written while the study ran."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from wandb_files import Mirror, read_back

from rankopt.study.rebuild import rebuild
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


OF_THE_RUN = ("_", "wandb")
"""Starts of summary entries that tell when a run was written."""


def test_all_runs_are_the_same(finished: tuple[Path, Any], tmp_path: Path) -> None:
    """Ids, groups, names, configurations, tables, heat maps, summaries and curves."""
    pytest.importorskip("wandb")
    folder = finished[0] / "runs" / "tiny"
    store = StudyStore(sqlite_url(folder), "tiny", tmp_path, artifacts=str(folder / "artifacts"))
    study = store.open()
    assert rebuild("offline", store, study, pytest.fail) == 4
    live, again = ({run.header["run_id"]: run for run in read_back(one / "wandb")} for one in (folder, tmp_path))
    assert set(live) == set(again)
    for name, run in live.items():
        other = again[name]
        for field in ("run_group", "job_type", "display_name", "project"):
            assert run.header[field] == other.header[field]
        assert _config(run) == _config(other)
        assert _numbers(run) == _numbers(other)
        assert [_step(row) for row in run.history] == [_step(row) for row in other.history]
        for key, value in run.summary.items():
            if isinstance(value, dict) and str(value.get("path", "")).endswith(".table.json"):
                assert run.table(value["path"]) == other.table(other.summary[key]["path"])


def test_a_study_without_results(study_of: Any, open_store: Any) -> None:
    store = open_store()
    study, _ = study_of()
    store.create(study)
    with pytest.raises(ValueError, match="study 'tiny' has no results yet: run rankopt run tiny first"):
        rebuild("offline", store, study, pytest.fail)


def _config(run: Mirror) -> dict[str, Any]:
    return {key: value for key, value in run.header["config"]["update"].items() if not key.startswith("_")}


def _numbers(run: Mirror) -> dict[str, Any]:
    return {
        key: value
        for key, value in run.summary.items()
        if not key.startswith(OF_THE_RUN) and not isinstance(value, dict)
    }


def _step(row: dict[str, Any]) -> dict[str, float]:
    """The training curves of a step; a tiny trial records each of its steps."""
    return {key: row[key] for key in ("step", "loss", "penalty", "lr", "gradient_norm", "budget") if key in row}
