"""Searches: what is proposed, told and counted, in this process with a stand-in for training."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from rankopt.analysis.frame import tidy
from rankopt.analysis.search import best
from rankopt.core.progress import Control, Progress
from rankopt.core.study_spec import StudySpec
from rankopt.study.attempts import (
    ALONE,
    INTERIM,
    KEY,
    ORIGIN,
    RESULT,
    SKIPPED,
    SPEC,
    WORKER,
    recorded,
)  # fmt: skip
from rankopt.study.events import Event, TrialAdvanced, TrialEnded, TrialStarted
from rankopt.study.export import export_adapter
from rankopt.study.job import Job, RunOptions
from rankopt.study.process import this_process
from rankopt.study.queue import propose, retry_failed, skip_reason, take
from rankopt.study.recovery import recover
from rankopt.study.storage import StudyStore
from rankopt.study.storage_url import sqlite_url
from rankopt.study.worker import work
from rankopt.training import trial as trial_module
from rankopt.training.train import InterruptedTrialError

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Run = Callable[..., Any]
SPACE = {
    "training.lr": {"float": [1e-4, 1e-2], "log": True},
    "budget.mean_rank": {"int": [1, 4]},
    "allocator": [{"name": "uniform"}, {"name": "ramp", "ratio": {"float": [1.0, 9.0]}}],
}
NUMBERS = {"training.lr": {"float": [1e-4, 1e-2], "log": True}, "budget.mean_rank": {"int": [1, 4]}}
ONE = {"score": "maximize"}


@pytest.fixture
def search_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_trial: Run, result: Run
) -> Callable[..., tuple[StudyStore, list[Event]]]:
    """Runs one worker over a search in a folder of its own with a stand-in for `run_trial`."""

    def go(
        where: str,
        search: dict[str, Any],
        space: dict[str, Any] = SPACE,
        stand_in: Run | None = None,
        heartbeat: int = 15,
        **more: Any,
    ) -> tuple[StudyStore, list[Event]]:
        folder = tmp_path / where
        folder.mkdir(exist_ok=True)

        def run(spec: Any, path: Path, control: Control, *_: Any) -> Any:
            (path / "adapter").mkdir(parents=True, exist_ok=True)
            (path / "adapter" / "weights").write_text(spec.key)
            (path / "predictions.npz").write_text(spec.key)
            made = stand_in(spec, observe=control.observe, evaluations=control.evaluations) if stand_in else None
            return result(spec, 1 / (1 + abs(spec.training.lr - 2e-3))) if made is None else made

        monkeypatch.setattr(trial_module, "run_trial", run)
        study = StudySpec.model_validate(
            {"name": "tiny", "base": tiny_trial(), "space": space, "search": search, **more}
        )
        store = StudyStore(sqlite_url(folder), "tiny", folder)
        store.create(study)
        events: list[Event] = []
        work(Job(0, "tiny", RunOptions(sqlite_url(folder), folder, heartbeat=heartbeat)), events.append)
        return store, events

    return go


def specs(store: StudyStore) -> list[dict[str, Any]]:
    """What was trained, in order; a trial that another try continues is left to it."""
    return [trial.user_attrs[SPEC] for trial in store.trials(TrialState.COMPLETE)]


def test_as_many_trials_as_asked_for(search_in: Run) -> None:
    """Trials are proposed until the study has them; run again it is finished; asked for more it goes on, and ends where
    a search that was asked for all of them at once ends."""
    store, events = search_in("a", {"name": "tpe", "trials": 5, "startup": 3})
    assert store.counts() == {"complete": 5, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}
    assert [type(event) for event in events if not isinstance(event, TrialAdvanced)] == [TrialStarted, TrialEnded] * 5
    assert search_in("a", {"name": "tpe", "trials": 5, "startup": 3})[1] == []
    store, _ = search_in("a", {"name": "tpe", "trials": 9, "startup": 3})
    assert store.counts()["complete"] == 9
    assert specs(store) == specs(search_in("b", {"name": "tpe", "trials": 9, "startup": 3})[0])


@pytest.mark.parametrize(
    ("search", "more"),
    [
        ({"name": "random"}, {}),
        ({"name": "qmc"}, {}),
        ({"name": "tpe", "startup": 3}, {}),
        ({"name": "tpe", "startup": 3}, {"objectives": ONE, "constraints": {"parameters": 20}}),
        ({"name": "gp", "startup": 3}, {"objectives": ONE}),
        ({"name": "gp", "startup": 3}, {}),
        ({"name": "cmaes"}, {"objectives": ONE, "space": NUMBERS}),
        ({"name": "nsga2", "population": 3}, {}),
        ({"name": "nsga3", "population": 3}, {}),
        ({"name": "evolution", "population": 3}, {"objectives": ONE, "constraints": {"parameters": 20}}),
        ({"name": "reinforce"}, {"objectives": ONE}),
    ],
    ids=lambda value: value.get("name") or f"{len(value.get('objectives', 'ab'))} objective",
)
def test_an_interrupted_search_is_the_uninterrupted_one(search_in: Run, search: dict[str, Any], more: Any) -> None:
    """Stopped in the middle of every third trial, and dead right after it took one once, it trains the same sequence of
    trials; another seed trains another one."""
    search = search | {"trials": 10, "seed": 1}
    straight, _ = search_in("straight", search, **more)
    count = 0

    def interrupted(spec: Any, **_: Any) -> Any:
        nonlocal count
        count += 1
        if count % 3 == 0:
            signal.raise_signal(signal.SIGTERM)
            raise InterruptedTrialError

    for attempt in range(6):
        store, _ = search_in("broken", search, stand_in=interrupted, **more)
        if attempt == 1:
            take(store).set_user_attr(WORKER, this_process() | {"started": 0.0})
    assert store.counts()["complete"] == 10
    assert len(store.trials()) > 12
    assert specs(store) == specs(straight)
    other, _ = search_in("other", search | {"seed": 2}, **more)
    assert specs(other) != specs(straight)


def test_inner_dimensions_are_proposed_where_they_exist(search_in: Run) -> None:
    """An option of an allocator is drawn only for the trials that chose it, and named by it."""
    store, _ = search_in("a", {"name": "random", "trials": 12})
    ratios = [trial.params.get("allocator[ramp].ratio") for trial in store.trials()]
    chosen = [trial.user_attrs[SPEC]["allocator"] for trial in store.trials()]
    assert {spec["name"] for spec in chosen} == {"uniform", "ramp"}
    assert [spec.get("ratio") for spec in chosen] == ratios


def test_the_same_trial_is_not_trained_twice(search_in: Run) -> None:
    """In a space of two points ten proposals are two trainings; the others are told the known values."""
    trained = []
    store, events = search_in(
        "a", {"name": "random", "trials": 10}, {"seed": [0, 1]}, lambda spec, **_: trained.append(spec.seed)
    )
    assert sorted(trained) == [0, 1]
    assert store.counts()["complete"] == 10
    assert len(store.results()) == 2
    assert {tuple(trial.values) for trial in store.trials()} == {tuple(trial.values) for trial in store.trials()[:1]}
    assert sum("not trained again" in getattr(event, "text", "") for event in events) == 8


def test_what_cannot_be_trained_is_a_failed_trial(search_in: Run) -> None:
    """A point outside what the fields allow together is a recorded failure with its reason, and the search goes on to
    the number of trials it was asked for."""
    space = {"budget.mean_rank": {"int": [1, 8]}}  # beyond max_rank 4
    store, events = search_in("a", {"name": "random", "trials": 4, "seed": 4}, space)
    counts = store.counts()
    assert counts["complete"] == 4
    assert counts["failed"] > 0
    failed = [result for result in store.results() if result.status == "failed"]
    assert all("budget.mean_rank must be at most model.max_rank" in result.reason for result in failed)
    assert any(event.text.startswith("failed: budget.mean_rank must be at most") for event in events)


def test_a_search_that_only_fails_gives_up(search_in: Run) -> None:
    """After as many failures as it was asked for trials, ten at least; nothing is left waiting."""

    def fail(spec: Any, **_: Any) -> Any:
        raise ValueError("task.data_dir must exist")

    store, _ = search_in("a", {"name": "tpe", "trials": 3}, stand_in=fail)
    assert store.counts() == {"complete": 0, "pruned": 0, "failed": 10, "running": 0, "waiting": 0}
    assert retry_failed(store) == 10
    store, _ = search_in("a", {"name": "tpe", "trials": 3})
    assert store.counts() == {"complete": 10, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}


def test_surplus_proposals_are_skipped(search_in: Run) -> None:
    """Workers that all saw one missing proposal queue several; the first is trained, the others count for nothing."""
    store, _ = search_in("a", {"name": "random", "trials": 2})
    store.search = store.search.model_copy(update={"trials": 3})
    for _ in range(3):
        propose(store)
    attempts = [store.frozen(trial) for trial in iter(lambda: take(store), None)]
    assert store.counts()["waiting"] == 0
    assert [skip_reason(store, attempt) for attempt in attempts] == ["", "not wanted", "not wanted"]
    store, _ = search_in("b", {"name": "random", "trials": 2})
    propose(store)
    assert search_in("b", {"name": "random", "trials": 2})[1] == []
    assert store.trials()[-1].user_attrs[SKIPPED] == "not wanted"
    assert store.counts() == {"complete": 2, "pruned": 0, "failed": 0, "running": 0, "waiting": 0}


def test_a_search_waits_for_lost_attempts(search_in: Run) -> None:
    """An attempt that was closed and not requeued, because that worker crashed too, is requeued before anything else is
    proposed, so the sequence stays that of the uninterrupted search."""
    search = {"name": "tpe", "startup": 2, "trials": 6}
    straight, _ = search_in("straight", search)
    count = 0

    def interrupted(spec: Any, **_: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            signal.raise_signal(signal.SIGTERM)
            raise InterruptedTrialError

    store, _ = search_in("broken", search, stand_in=interrupted)
    store.study.tell(take(store), state=TrialState.FAIL)
    assert [trial.state.name for trial in store.trials()] == ["COMPLETE"] * 2 + ["FAIL"] * 2
    store, _ = search_in("broken", search, heartbeat=1)
    assert specs(store) == specs(straight)


def test_scores_of_two_tasks_are_not_compared(search_in: Run, tmp_path: Path) -> None:
    """Accuracy would beat Matthews every time: which of a study's tasks an adapter is for, its user says."""
    store, _ = search_in("a", {"name": "random", "trials": 2}, repeat={"task.name": ["mini-cola", "mini-rte"]})
    with pytest.raises(ValueError, match="--trial is required, because scores on mini-cola and mini-rte cannot"):
        export_adapter(store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_constraint_is_told(search_in: Run) -> None:
    """Kept parameters beyond it violate it by their excess."""
    store, _ = search_in("a", {"name": "tpe", "trials": 2}, objectives=ONE, constraints={"parameters": 20})
    assert [trial.constraints for trial in store.trials()] == [{"parameters": 4.0}] * 2
    assert [len(trial.values) for trial in store.trials()] == [1, 1]


def test_what_breaks_the_constraint_judges_nobody(search_in: Run) -> None:
    """While it trains, a trial beyond the constraint is stopped at once, with its excess told, and its scores are not
    those that others are judged by."""

    def stand_in(spec: Any, *, observe: Run, **rest: Any) -> None:
        kept = 24 if spec.training.lr > 1e-3 else 16
        for step in (1, 2, 3):  # the dear ones score better
            observe(Progress(step, 4, "score", {"score": kept / 100, "parameters": kept, "error": 0.01}))

    search = {"name": "random", "trials": 12, "pruner": {"name": "median", "startup": 1, "evaluations": 3}}
    store, events = search_in("a", search, NUMBERS, stand_in, objectives=ONE, constraints={"parameters": 20})
    dear = [trial for trial in store.trials() if trial.params["training.lr"] > 1e-3]
    assert 0 < len(dear) < 12
    assert {trial.state for trial in dear} == {TrialState.PRUNED}
    assert all(trial.constraints == {"parameters": 4.0} and not trial.intermediate_values for trial in dear)
    assert sum(
        "24 parameters, more than the constraint of 20" in getattr(event, "text", "") for event in events
    ) == len(dear)
    assert {trial.state for trial in store.trials() if trial not in dear} == {TrialState.COMPLETE}


class KilledError(BaseException):
    """Stands for SIGKILL: no `except Exception` of the worker handles it."""


@pytest.mark.parametrize(
    "moment", ["before an evaluation", "before the pruner", "before the verdict", "before a checkpoint", "at the end"]
)
def test_a_pruned_search_killed_around_its_evaluations(
    search_in: Run, result: Run, moment: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whether the score or the checkpoint was written last: what is pruned, when, and what is proposed then, is what it
    is without kills. A training continues from its checkpoint, which holds the scores up to there."""
    search = {"name": "tpe", "trials": 8, "startup": 3, "seed": 1}
    search |= {"pruner": {"name": "median", "startup": 2, "evaluations": 4}}
    checkpoints: dict[str, int] = {}
    draw, deadly, current = random.Random(0), False, ""
    deaths = Counter[str]()

    def dies(now: str) -> None:
        # at most twice in one training: a fourth crash would be a recorded failure
        if deadly and now == moment and deaths[current] < 2 and draw.random() < 0.5:
            deaths[current] += 1
            raise KilledError

    def training(spec: Any, *, observe: Run, evaluations: int, **_: Any) -> Any:
        nonlocal current
        current, rate = spec.key, spec.training.lr * 100

        def show(step: int) -> None:
            score = rate * step / evaluations + (1 - rate) * 0.3
            observe(Progress(step, evaluations + 1, "score", {"score": score, "parameters": 24, "error": 0.01}))

        done = checkpoints.get(spec.key, 0)
        for step in range(1, done + 1):
            show(step)
        for step in range(done + 1, evaluations + 1):
            dies("before an evaluation")
            show(step)
            dies("before a checkpoint")
            checkpoints[spec.key] = step
        return result(spec, rate)

    report, should_prune, tell = optuna.Trial.report, optuna.Trial.should_prune, optuna.Study.tell

    def reporting(self: Any, *words: Any) -> None:
        dies("before the pruner")
        report(self, *words)

    def pruning(self: Any) -> bool:
        verdict = should_prune(self)
        dies("before the verdict")
        return verdict

    def telling(self: Any, *words: Any, **more: Any) -> Any:
        dies("at the end")
        return tell(self, *words, **more)

    monkeypatch.setattr(optuna.Trial, "report", reporting)
    monkeypatch.setattr(optuna.Trial, "should_prune", pruning)
    monkeypatch.setattr(optuna.Study, "tell", telling)

    def summary(store: StudyStore) -> list[Any]:
        ended = store.trials(TrialState.COMPLETE, TrialState.PRUNED)
        return [(t.user_attrs[SPEC], t.state, t.values, t.intermediate_values, t.user_attrs[INTERIM]) for t in ended]

    straight = summary(search_in("straight", search, LR, training, objectives=ONE)[0])
    assert {state for _, state, *_ in straight} == {TrialState.COMPLETE, TrialState.PRUNED}, "the test could not fail"
    deadly = True
    checkpoints.clear()
    while True:
        try:
            store, _ = search_in("broken", search, LR, training, objectives=ONE)
            break
        except KilledError:
            pass
        folder = tmp_path / "broken"
        lost = StudyStore(sqlite_url(folder), "tiny", folder)
        lost.open()
        (running,) = lost.trials(TrialState.RUNNING)
        lost.storage.set_trial_user_attr(running._trial_id, WORKER, this_process() | {"started": 0.0})
    assert deaths.total() > 3
    assert summary(store) == straight


def test_another_question_is_another_study(search_in: Run) -> None:
    """Trials of another space, base or seed would mislead the sampler; they are refused, a larger number is not."""
    search_in("a", {"name": "tpe", "trials": 1})
    for search, space, field in (
        ({"name": "tpe", "trials": 1}, NUMBERS, "space"),
        ({"name": "tpe", "trials": 1, "seed": 5}, SPACE, "search"),
        ({"name": "random", "trials": 1}, SPACE, "search"),
        ({"name": "grid"}, {"seed": [0]}, "space"),
    ):
        with pytest.raises(ValueError, match=f"^{field} must stay that of the stored study 'tiny'"):
            search_in("a", search, space)


# ------------------------------------------------------------------------------------------------------------- pruning


def scores(*values: float) -> Run:
    """A stand-in that shows these scores, better at a higher learning rate, and 24 parameters."""

    def run(spec: Any, *, observe: Run, evaluations: int, **_: Any) -> Any:
        assert evaluations == len(values)
        for step, value in enumerate(values, 1):
            shown = {"score": value + 10 * spec.training.lr, "parameters": 24, "error": 0.001}
            observe(Progress(step, len(values) + 1, "score", shown))

    return run


@pytest.mark.parametrize("name", ["median", "halving", "hyperband"])
def test_a_pruner_stops_what_falls_behind(search_in: Run, name: str) -> None:
    """Stopped trials count as trials, keep what they showed, leave nothing behind, and the best is never among them."""
    search = {"name": "random", "trials": 12, "pruner": {"name": name, "evaluations": 3}}
    space = {"training.lr": {"float": [1e-3, 1e-2]}}
    store, events = search_in("a", search, space, scores(0.1, 0.2, 0.3), objectives=ONE)
    counts = store.counts()
    assert counts["pruned"] > 0
    assert counts["complete"] + counts["pruned"] == 12
    pruned = store.trials(TrialState.PRUNED)
    assert all(1 <= len(trial.user_attrs[INTERIM]) <= 3 and RESULT not in trial.user_attrs for trial in pruned)
    best = max(trial.params["training.lr"] for trial in store.trials())
    if name != "hyperband":
        assert best in {trial.params["training.lr"] for trial in store.trials(TrialState.COMPLETE)}
    assert sum("pruned at evaluation" in getattr(event, "text", "") for event in events) == counts["pruned"]
    assert not any((store.folder / "trials").iterdir())


def test_a_dominated_trial_is_stopped(search_in: Run) -> None:
    """With two objectives our own rule: at the same evaluation another trial is better beyond the noise and not dearer;
    values are told of the others only."""
    search = {"name": "random", "trials": 12, "pruner": {"name": "dominated", "evaluations": 3}}
    store, _ = search_in("a", search, {"training.lr": {"float": [1e-3, 1e-2]}}, scores(0.1, 0.2, 0.3))
    best, expected = 0.0, []
    for trial in store.trials():
        lr = trial.params["training.lr"]
        expected.append("PRUNED" if 10 * best > 10 * lr + 2 * 2**0.5 * 0.001 else "COMPLETE")
        best = max(best, lr)
    assert [trial.state.name for trial in store.trials()] == expected
    assert "PRUNED" in expected
    assert all(len(trial.user_attrs[INTERIM]) == 2 for trial in store.trials(TrialState.PRUNED))
    assert all(SKIPPED not in trial.user_attrs for trial in store.trials())


def test_a_copy_continues_its_original(search_in: Run) -> None:
    """The copy of a trial that was given back has its parameters, and says whose copy it is."""
    calls = []

    def once(spec: Any, **_: Any) -> Any:
        calls.append(spec)
        if len(calls) == 1:
            signal.raise_signal(signal.SIGTERM)
            raise InterruptedTrialError

    search_in("a", {"name": "tpe", "trials": 1}, stand_in=once)
    store, _ = search_in("a", {"name": "tpe", "trials": 1}, stand_in=once)
    first, second = store.trials()
    assert (first.state.name, second.state.name) == ("FAIL", "COMPLETE")
    assert second.user_attrs[ORIGIN] == 0
    assert first.params == second.params
    assert first.user_attrs[KEY] == second.user_attrs[KEY]


SEEDS = {"repeat": {"seed": [0, 1, 2, 3, 4]}, "objectives": ONE}
LR = {"training.lr": {"float": [1e-3, 1e-2]}}


def noisy(result: Run, trained: list[tuple[float, int]]) -> Run:
    """A stand-in whose score falls with the learning rate and moves with the seed; it notes what it trained."""

    def run(spec: Any, **_: Any) -> Any:
        trained.append((spec.training.lr, spec.seed))
        return result(spec, 0.9 - 20 * spec.training.lr + 0.01 * spec.seed)

    return run


def test_a_repeated_trial_is_told_its_mean(search_in: Run, result: Run) -> None:
    """A proposal is trained at every repeat, one after another; each training has a key, a result and an adapter."""
    trained: list[tuple[float, int]] = []
    store, events = search_in("a", {"name": "random", "trials": 3}, LR, noisy(result, trained), **SEEDS)
    assert store.counts()["complete"] == 3
    lrs = [trial.params["training.lr"] for trial in store.trials()]
    assert trained == [(lr, seed) for lr in lrs for seed in range(5)]
    assert [trial.values for trial in store.trials()] == [[pytest.approx(0.92 - 20 * lr)] for lr in lrs]
    results = store.results()
    assert len({one.key for one in results}) == 15
    assert [(one.spec["training"]["lr"], one.spec.get("seed", 0)) for one in results] == trained
    assert [keys for keys, _ in store.proposals()] == [[one.key for one in results[n : n + 5]] for n in (0, 5, 10)]
    assert sum(isinstance(event, TrialEnded) for event in events) == 3
    last = results[-1]
    export_adapter(store, store.folder / "taken", last.key)
    assert (store.folder / "taken" / "weights").read_text() == last.key


def test_interrupted_between_repeats(search_in: Run, result: Run) -> None:
    """What a trial has trained already is not trained again, and the search is the uninterrupted one."""
    search = {"name": "tpe", "trials": 4, "startup": 2}
    straight: list[tuple[float, int]] = []
    search_in("straight", search, LR, noisy(result, straight), **SEEDS)
    trained: list[tuple[float, int]] = []
    train = noisy(result, trained)

    def interrupted(spec: Any, **rest: Any) -> Any:
        if len(trained) in (2, 8) and trained[-1] is not None:
            trained.append(None)  # type: ignore[arg-type]
            signal.raise_signal(signal.SIGTERM)
            raise InterruptedTrialError
        return train(spec, **rest)

    for _ in range(3):
        store, _events = search_in("broken", search, LR, interrupted, **SEEDS)
    assert store.counts()["complete"] == 4
    assert [one for one in trained if one] == straight


def test_a_race_stops_what_is_worse(search_in: Run, result: Run) -> None:
    """By the signed-rank test: worse in each of four pairs is p = 1/16, so a worse proposal is spared the fifth
    training; the best is never stopped, and what was stopped is no result of the study's."""
    trained: list[tuple[float, int]] = []
    search = {"name": "random", "trials": 8, "pruner": {"name": "wilcoxon"}}
    store, events = search_in("a", search, LR, noisy(result, trained), **SEEDS)
    best, expected = 1.0, []
    for trial in store.trials():
        lr = trial.params["training.lr"]
        expected.append(("PRUNED", 4) if lr > best else ("COMPLETE", 5))
        best = min(best, lr)
    made = [(t.state.name, sum(lr == t.params["training.lr"] for lr, _ in trained)) for t in store.trials()]
    assert made == expected
    assert ("PRUNED", 4) in expected
    complete = [t.params["training.lr"] for t in store.trials(TrialState.COMPLETE)]
    assert {one.spec["training"]["lr"] for one in store.results()} == set(complete)
    assert len(store.results(planned=False)) == len(trained)
    assert sum("pruned after 4 trainings" in getattr(event, "text", "") for event in events) == store.counts()["pruned"]


def test_a_failure_at_a_repeat_is_told_as_that_training(search_in: Run, result: Run, tmp_path: Path) -> None:
    """The trial fails, and the training that failed is named; so is one whose workers died too often."""

    def failing(spec: Any, **_: Any) -> Any:
        if spec.seed == 2:
            raise ValueError("training.lr must be lower")
        return result(spec, 0.5)

    store, _ = search_in("a", {"name": "random", "trials": 1}, LR, failing, **SEEDS)
    failed = [one for one in store.results() if one.status == "failed"]
    assert store.counts()["failed"] > 0
    assert {one.spec["seed"] for one in failed} == {2}
    assert {one.status for one in store.results()} == {"failed"}  # two seeds of five are no result
    assert sum(one.status == "complete" for one in store.results(planned=False)) == 2 * len(failed)

    again: list[tuple[float, int]] = []
    assert retry_failed(store) == len(failed)
    assert retry_failed(store) == 0  # they are queued already
    store, _ = search_in("a", {"name": "random", "trials": 1}, LR, noisy(result, again), **SEEDS)
    assert [seed for _, seed in again] == [2, 3, 4] * len(failed)
    assert store.counts()["complete"] == len(failed)

    propose(store)
    trial = take(store)
    first = next(one for one in store.study.trials if one.state == TrialState.FAIL)
    for name in (SPEC, KEY, RESULT):
        trial.set_user_attr(name, first.user_attrs[name])
    dead = crashed(store, 4)
    assert [one["status"] for one in recorded(dead)] == ["complete", "failed"]
    assert recorded(dead)[1]["spec"]["seed"] == 1
    assert "crashed 4 times" in recorded(dead)[1]["reason"]


def crashed(store: StudyStore, times: int) -> Any:
    """The last attempt, after its worker crashed, and then that of the next attempt, and so on."""
    for _ in range(times):
        running = store.trials()[-1]
        store.storage.set_trial_user_attr(running._trial_id, ALONE, len(recorded(running)))
        store.storage.set_trial_user_attr(running._trial_id, WORKER, this_process() | {"started": 0.0})
        recover(store)
        if store.trials()[-1].state == TrialState.WAITING:
            store.storage.set_trial_state_values(store.trials()[-1]._trial_id, TrialState.RUNNING)
    return store.trials()[-1]


@pytest.mark.parametrize("more", [{}, SEEDS])
def test_deaths_after_the_last_result_lose_nothing(search_in: Run, result: Run, more: Any) -> None:
    """Where all results are on record there is nothing left to fail: the trial is only to be closed."""
    store, _ = search_in("a", {"name": "random", "trials": 1}, LR, noisy(result, []), **more)
    (done,) = store.trials()
    propose(store)
    trial = take(store)
    for name, value in done.user_attrs.items():
        trial.set_user_attr(name, value)
    last = crashed(store, 6)
    assert len(recorded(last)) == len(recorded(done))
    assert all(one["status"] == "complete" for one in recorded(last))


def test_what_is_taken_home_is_the_best_by_its_mean(search_in: Run, result: Run) -> None:
    """A proposal with one lucky seed is not it, nor one that lacks a seed; of the best the best seed is taken."""

    def lucky(spec: Any, **_: Any) -> Any:
        if spec.training.lr > 5.5e-3:  # good, but one of its trainings fails
            return result(spec, 0.99) if spec.seed < 4 else result(spec, status="failed", points=(), reason="?")
        if spec.training.lr > 4e-3:
            return result(spec, 0.95 if spec.seed == 0 else 0.1)
        return result(spec, 0.5 + 0.01 * spec.seed)

    store, _ = search_in("a", {"name": "random", "trials": 6}, LR, lucky, **SEEDS)
    lrs = [trial.params["training.lr"] for trial in store.trials()]
    assert {0 if lr < 4e-3 else 1 if lr < 5.5e-3 else 2 for lr in lrs} == {0, 1, 2}, "the test could not fail"
    taken = export_adapter(store, store.folder / "taken")
    assert (taken.result.spec["seed"], taken.result.score("search")) == (4, 0.54)
    row = best(tidy(store.results(), pooled=True), 10**9).iloc[0]
    assert (row["n"], round(row["search"], 4)) == (5, 0.52)


@pytest.mark.parametrize("moment", ["queued", "taking", "taken"])
def test_a_worker_that_crashes_while_it_proposes_leaves_no_gap(search_in: Run, moment: str) -> None:
    """Killed before a proposal is sampled: the next worker notices at once, and samples it in the same way."""
    code = f"""
import os, pathlib, sys
from rankopt.study.queue import propose, take
from rankopt.study.storage import StudyStore
store = StudyStore(sys.argv[1], "tiny", pathlib.Path(sys.argv[2]))
store.open()
propose(store)
if {moment == "taking"}:
    store.storage.record_heartbeat = lambda trial: os._exit(9)
if {moment != "queued"}:
    take(store)
os._exit(9)
"""
    nsga2 = {"name": "nsga2", "population": 3}
    straight, _ = search_in("straight", {**nsga2, "trials": 8})
    broken, _ = search_in("broken", {**nsga2, "trials": 4})
    done = subprocess.run([sys.executable, "-c", code, sqlite_url(broken.folder), str(broken.folder)], check=False)
    assert done.returncode == 9
    lost = broken.trials(TrialState.RUNNING)
    assert len(lost) == (moment != "queued")
    broken, _ = search_in("broken", {**nsga2, "trials": 8})
    assert [attempt.number for attempt in broken.trials(TrialState.FAIL)] == [attempt.number for attempt in lost]
    assert specs(broken) == specs(straight)
