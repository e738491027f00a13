"""The results file that a run keeps up to date."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.study import live_results_file
from rankopt.study.live_results_file import ResultsRecorder
from rankopt.study.results_format import Entry, TrialRecord
from rankopt.study.results_transfer import add_records
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

BASE = {"task": {"name": "rte"}, "allocator": {"name": "uniform"}, "budget": {"mean_rank": 2}}


@pytest.fixture
def store(tmp_path: Path) -> StudyStore:
    store = StudyStore(sqlite_url(tmp_path), "g", tmp_path)
    store.create(StudySpec.model_validate({"name": "g", "base": BASE, "space": {"seed": [0, 1]}}))
    return store


def add(store: StudyStore, made: TrialResult) -> None:
    add_records(store, [Entry("-", TrialRecord.of("0" * 12, made))])


def lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_the_file_is_written_at_once_and_after_results(
    store: StudyStore, result: Callable[..., TrialResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not again within twenty times the duration of a write, unless it is the last time."""
    path = tmp_path / "out" / "r.jsonl"
    monkeypatch.setattr(live_results_file, "PAUSE", 0.0)
    record = ResultsRecorder(store, path)
    assert lines(path) == 1
    add(store, result(store.spec().trial({"seed": 0})))
    assert record() == ""
    assert lines(path) == 2
    monkeypatch.setattr(live_results_file, "PAUSE", 1e6)
    record()
    add(store, result(store.spec().trial({"seed": 1})))
    assert record() == ""
    assert lines(path) == 2
    assert record(last=True) == ""
    assert lines(path) == 3


def test_a_failure_to_write_is_told_and_the_earlier_file_stays(
    store: StudyStore, result: Callable[..., TrialResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "r.jsonl"
    record = ResultsRecorder(store, path)
    before = path.read_bytes()
    add(store, result(store.spec().trial({"seed": 0})))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        assert record(last=True) == (
            f"{path} could not be written ([Errno 28] No space left on device: {str(path)!r}); "
            "no result is lost: run again to write it"
        )
    assert path.read_bytes() == before
    assert record(last=True) == ""
    assert lines(path) == 2


def test_a_file_that_cannot_be_written_is_refused_at_the_start(store: StudyStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        ResultsRecorder(store, tmp_path / "file" / "r.jsonl")
    os.mkdir(tmp_path / "folder")
    with pytest.raises((OSError, ValueError), match="folder"):
        ResultsRecorder(store, tmp_path / "folder")


def test_no_file(store: StudyStore) -> None:
    assert ResultsRecorder(store, None)(last=True) == ""
