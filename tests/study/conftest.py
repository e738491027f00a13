"""A study of the small world in a SQLite file, and results as trials would leave them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from results_data import study

from rankopt.core.pattern import RankPattern, Shape
from rankopt.core.result import Point, TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.results_format import AnyRecord, StudyRecord, TrialRecord
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url

Trials = list[tuple[dict[str, Any], TrialSpec]]


def finished(spec: TrialSpec, score: float = 0.75, **changes: Any) -> TrialResult:
    """A small complete result of a trial."""
    pattern = RankPattern({"a": 2, "b": 1})
    point = Point(
        label="budget",
        pattern=pattern,
        kept=24,
        search={"accuracy": score},
        report={"validation": {"accuracy": score - 0.1}},
    )
    complete: dict[str, Any] = {
        "key": spec.key,
        "spec": spec.plain,
        "status": "complete",
        "metrics": ("accuracy",),
        "layers": {"a": Shape(4, 4), "b": Shape(4, 4)},
        "points": (point,),
    }
    return TrialResult(**(complete | changes))


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """A worker's handlers end with the test."""
    saved = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in saved.items():
        signal.signal(number, handler)


@pytest.fixture
def result() -> Callable[..., TrialResult]:
    return finished


@pytest.fixture
def study_of(tiny_trial: Callable[..., dict[str, Any]]) -> Callable[..., tuple[StudySpec, Trials]]:
    """A study over seeds (or another space), and its trials."""

    def make(space: dict[str, Any] | None = None, name: str = "tiny", **more: Any) -> tuple[StudySpec, Trials]:
        space = {"seed": [0, 1, 2]} if space is None else space
        study = StudySpec.model_validate({"name": name, "base": tiny_trial(), "space": space} | more)
        return study, [(assignment, study.trial(assignment)) for assignment in study.assignments()]

    return make


@pytest.fixture
def open_store(tmp_path: Path) -> Callable[..., StudyStore]:
    """Another look at the same SQLite file."""
    return lambda name="tiny", **more: StudyStore(sqlite_url(tmp_path), name, tmp_path, **more)


@pytest.fixture
def records() -> list[AnyRecord]:
    """A study of three trials: two complete, one failed."""
    spec = study()
    trials = [spec.trial(each) for each in spec.assignments()]
    environment = {"torch": "2.13.0", "data": "0123abcd", "model": "4567ef01", "code": "90abcdef1234+", "device": "cpu"}
    results = [
        finished(trials[0], 0.5, environment=environment),
        finished(trials[1], float(2 / 3)),
        TrialResult(
            key=trials[2].key, spec=trials[2].plain, status="failed", reason='out of "memory"\n\x1b[31m ü \u2028'
        ),
    ]
    head = StudyRecord.of(spec)
    return [head, *(TrialRecord.of(head.study, each, planned=index < 2) for index, each in enumerate(results))]
