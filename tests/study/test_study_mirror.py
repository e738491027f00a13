"""The study's own W&B run, from its offline files: the report's numbers, also while the study runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stored_study import created, record
from wandb_files import Mirror, read_back

from rankopt.analysis.averages import average
from rankopt.analysis.frame import tidy
from rankopt.api.study import stored_results
from rankopt.core.result import TrialResult
from rankopt.report.evidence import Evidence
from rankopt.study import study_mirror
from rankopt.study.queue import enqueue
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url
from rankopt.study.study_mirror import PAUSE, StudyMirror

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(scope="module")
def study_run(finished: tuple[Path, Any]) -> Mirror:
    pytest.importorskip("wandb")
    (found,) = [run for run in read_back(finished[0] / "runs" / "tiny" / "wandb") if run.header["job_type"] == "study"]
    return found


@pytest.fixture
def results(finished: tuple[Path, Any]) -> list[TrialResult]:
    folder = finished[0] / "runs" / "tiny"
    store = StudyStore(sqlite_url(folder), "tiny", folder)
    store.open()
    return store.results()


def test_the_tradeoff_curve(study_run: Mirror, results: list[TrialResult]) -> None:
    """The study's run plots the mean score over seeds against kept parameters, one line per allocator."""
    (name,) = [row[key] for row in study_run.history for key in row if key == "tradeoff/sst2_table.path"]
    curves: dict[str, dict[float, float]] = {}
    for row in study_run.table(name):
        curves.setdefault(row["lineKey"], {})[row["step"]] = row["lineVal"]
    averages = average(tidy(results))
    for allocator, rows in averages[averages["chosen"]].groupby("allocator"):
        assert curves.pop(allocator) == pytest.approx(dict(zip(rows["kept"], rows["score"], strict=True)))
        for sign, words in ((1, "+"), (-1, "-")):
            ends = dict(zip(rows["kept"], rows["score"] + sign * rows["error"], strict=True))
            assert curves.pop(f"{allocator} {words} 1 standard error") == pytest.approx(ends)
    assert curves == {}


def test_the_studys_tables_are_the_reports(study_run: Mirror, finished: tuple[Path, Any]) -> None:
    """Means and verdicts are those of the report, number by number, intervals over examples included."""
    folder = finished[0] / "runs" / "tiny"
    store = StudyStore(sqlite_url(folder), "tiny", folder)
    found = stored_results(store, store.open())
    evidence = Evidence.of(found.study, found.results, found.counts, found.search)
    arms, cells = evidence.comparison
    for name, frame in (("averages", evidence.averages), ("verdicts", arms), ("differences", cells)):
        rows = study_run.table(study_run.summary[name]["path"])
        assert len(rows) == len(frame) > 0
        for row, expected in zip(rows, frame.to_dict("records"), strict=True):
            for column, value in expected.items():
                assert row[column] is None if value != value else row[column] == pytest.approx(value), column


def test_the_study_is_shown_while_it_runs(
    open_store: Callable[..., StudyStore], study_of: Any, result: Callable[..., TrialResult], tmp_path: Path
) -> None:
    """Curves and tables are logged again after a pause, not after every trial, and once more at the end."""
    pytest.importorskip("wandb")
    study, trials = study_of()
    store = created(open_store, study)
    enqueue(store, trials)
    now, told = [0.0], list[str]()
    mirror = StudyMirror("offline", store, study, told.append, clock=lambda: now[0])
    for _ in trials:
        record(store, result)
        mirror.trial_ended()
        mirror.trial_ended()
        now[0] += PAUSE + 1
    mirror.finish()
    assert told == []
    (run,) = read_back(tmp_path / "wandb")
    logged = [row for row in run.history if "averages.path" in row]
    seeds = [run.table(row["averages.path"])[0]["n"] for row in logged]
    assert seeds == [2, 3, 3]
    assert all(any(key.startswith("tradeoff/") for key in row) for row in logged)
    assert (run.header["run_id"], run.summary["complete"]) == ("tiny-study", 3)


def test_failures_alone_are_published(
    open_store: Callable[..., StudyStore], study_of: Any, result: Callable[..., TrialResult], tmp_path: Path
) -> None:
    pytest.importorskip("wandb")
    study, trials = study_of()
    store = created(open_store, study)
    enqueue(store, trials)
    record(store, result, status="failed", points=(), reason="out of memory")
    StudyMirror("offline", store, study, pytest.fail).finish()
    (run,) = read_back(tmp_path / "wandb")
    assert (run.exit_code, run.summary["failed"]) == (0, 1)


def test_a_failing_mirror_is_turned_off(
    open_store: Callable[..., StudyStore], study_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror must not break the study: the failure is told once."""

    def broken(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(study_mirror, "start_run", broken)
    study, _ = study_of()
    told: list[str] = []
    mirror = StudyMirror("offline", created(open_store, study), study, told.append)
    mirror.finish()
    mirror.finish()
    assert told == ["the study could not be published to W&B: ConnectionError: no route"]
