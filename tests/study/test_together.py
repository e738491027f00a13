"""A worker that trains several trials at once records what it records one by one, whatever ends, fails or dies."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import plain_environment
from optuna.trial import TrialState
from warm_process import Command

from rankopt.core.progress import Progress
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.attempts import KEY
from rankopt.study.early_stopping import EarlyStopping
from rankopt.study.events import Event
from rankopt.study.job import Job, RunOptions
from rankopt.study.objective import Objective
from rankopt.study.queue import enqueue
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url
from rankopt.study.worker import work
from rankopt.training.trial import run_trial

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

QUICKLY = ("--wandb", "disabled", "--heartbeat", "1", "--grace", "4")


def store_in(folder: Path) -> StudyStore:
    store = StudyStore(sqlite_url(folder / "runs" / "tiny"), "tiny", folder / "runs" / "tiny")
    store.open()
    return store


def assert_alike(mine: TrialResult, other: TrialResult) -> None:
    """What two trainings of a trial yielded is equal to rounding."""
    assert mine.points, mine.reason
    assert mine.key == other.key
    assert mine.ranks == other.ranks
    assert [(p.label, p.pattern, p.search, p.report) for p in mine.points] == [
        (p.label, p.pattern, p.search, p.report) for p in other.points
    ]
    assert [e.loss for e in mine.losses] == pytest.approx([e.loss for e in other.losses], abs=1e-4)


def test_the_results_are_those_of_one_by_one(
    finished: tuple[Path, Any], warm: Callable[..., Any], tmp_path: Path
) -> None:
    """The study of the fixture once more, three at once, W&B runs side by side: the same four results to rounding."""
    study = finished[0] / "tiny.yaml"
    done = warm("run", study, "--together", 3, "--wandb", "offline", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "W&B failed" not in done.stdout
    assert "could not be published" not in done.stdout
    assert len(list((tmp_path / "runs" / "tiny" / "wandb").glob("offline-run-*"))) == 5
    ours, theirs = store_in(tmp_path).results(), store_in(finished[0]).results()
    assert len(ours) == 4
    for mine, other in zip(ours, theirs, strict=True):
        assert_alike(mine, other)
    starts = [line for line in (tmp_path / "runs" / "tiny" / "log.txt").read_text().splitlines() if "started" in line]
    assert {line.rpartition(" ")[2] for line in starts} == {"0", "1", "2"}


def test_one_that_diverges_fails_alone(
    tiny_study: Callable[..., Path], warm: Callable[..., Any], tmp_path: Path
) -> None:
    """Its failure is recorded; the others of the stack complete."""
    # a decay of lr * weight_decay = 1e6 per step makes the weights overflow
    rates = [[5.0e-3, 0.0], [1000.0, 1000.0], [1.0e-3, 0.0]]
    path = tiny_study(space={"training.lr, training.weight_decay": rates})
    done = warm("run", path, "--together", 3, "--wandb", "disabled", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    results = store_in(tmp_path).results()
    assert [result.status for result in results] == ["complete", "failed", "complete"]
    assert "at step" in results[1].reason


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_what_is_cut_off_goes_on(
    how: signal.Signals, tiny_study: Callable[..., Path], warm: Callable[..., Any], tmp_path: Path
) -> None:
    """Interrupted, every trial of the stack leaves a checkpoint and is given back; killed, all are taken up again: in
    the end each is complete exactly once, with the numbers of a run that nothing cut off."""
    path = tiny_study(training__steps=100, space={"seed": [0, 1, 2]})
    words = ("run", path, "--together", "3", "--checkpoint-steps", "10", *QUICKLY)
    process = Command(words, tmp_path, plain_environment(), merged=True)
    trials = tmp_path / "runs" / "tiny" / "trials"
    end = time.monotonic() + 100
    while len(list(trials.glob("*/checkpoints/*/seal.json"))) < 3 and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    if how == signal.SIGINT:
        os.kill(process.pid, how)
        assert process.wait(60) == 130, process.printed
        assert process.printed.count("interrupted; run the study again to continue from its checkpoint") == 3
    else:
        process.kill()
    done = warm(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    store = store_in(tmp_path)
    assert set(Counter(t.user_attrs[KEY] for t in store.trials(TrialState.COMPLETE)).values()) == {1}
    for index, result in enumerate(store.results()):
        assert_alike(result, run_trial(TrialSpec.model_validate_json(json.dumps(result.spec)), tmp_path / str(index)))


def test_a_lane_that_dies_takes_the_worker_with_it(
    open_store: Callable[..., StudyStore], study_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error outside any trial ends the process once the other lanes have given back what they had."""
    study, trials = study_of({"seed": [0, 1, 2, 3]})
    store = open_store()
    store.create(study)
    enqueue(store, trials)
    call = Objective.__call__

    def broken(self: Objective, trial: Any) -> Any:
        if trial.number == 1:
            raise RuntimeError("a bug")
        return call(self, trial)

    monkeypatch.setattr(Objective, "__call__", broken)
    events: list[Event] = []
    with pytest.raises(RuntimeError, match="a bug"):
        work(Job(0, "tiny", RunOptions(sqlite_url(tmp_path), tmp_path, together=2)), events.append)
    assert not store.trials(TrialState.RUNNING)
    monkeypatch.undo()
    work(Job(0, "tiny", RunOptions(sqlite_url(tmp_path), tmp_path, together=2)), events.append)
    assert store.counts()["complete"] == 4


def test_trials_are_in_lanes_of_one_process(
    open_store: Callable[..., StudyStore], study_of: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With as many lanes as trials, all of them share passes."""
    from rankopt.training.joint import joint_training as module

    sizes: list[int] = []

    class Watched(module.Stack):
        def forward(self, parts: Any, training: bool) -> Any:
            sizes.append(len(parts))
            return super().forward(parts, training)

    monkeypatch.setattr(module, "Stack", Watched)
    study, trials = study_of()
    store = open_store()
    store.create(study)
    enqueue(store, trials)
    work(Job(0, "tiny", RunOptions(sqlite_url(tmp_path), tmp_path, together=3)), lambda event: None)
    assert store.counts()["complete"] == 3
    assert max(sizes) == 3


def test_a_pruned_search(
    open_store: Callable[..., StudyStore],
    tiny_trial: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Lanes propose side by side; one that is pruned leaves the stack and the others go on; the count is right."""
    study = StudySpec.model_validate(
        {
            "name": "tiny", "base": tiny_trial(), "objectives": {"score": "maximize"},
            "space": {"training.lr": {"float": [1.0e-4, 1.0e-2], "log": True}},
            "search": {"name": "random", "trials": 9, "pruner": {"name": "median", "evaluations": 3, "startup": 2}},
        }
    )  # fmt: skip

    def evaluated(self: EarlyStopping, progress: Progress) -> None:
        if self.trial.number % 3 == 1:
            raise optuna.TrialPruned

    monkeypatch.setattr(EarlyStopping, "evaluated", evaluated)
    store = open_store()
    store.create(study)
    work(Job(0, "tiny", RunOptions(sqlite_url(tmp_path), tmp_path, together=3)), lambda event: None)
    assert store.counts() == {"complete": 6, "pruned": 3, "failed": 0, "running": 0, "waiting": 0}
