"""Early stopping: what an attempt reports once, and when it is pruned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest

from rankopt.core.progress import Progress
from rankopt.core.study_spec import StudySpec
from rankopt.study.attempts import INTERIM
from rankopt.study.early_stopping import EarlyStopping

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Open = Callable[..., Any]


SPEC = StudySpec(name="s", base={}, objectives={"score": "maximize"})


def evaluation(step: int, score: float, parameters: float = 100.0) -> Progress:
    return Progress(step, 10, "score", {"score": score, "parameters": parameters, "error": 0.01})


@pytest.fixture
def store(study_of: Any, open_store: Open) -> Any:
    """A search with a median pruner over one objective."""
    pruner = {"name": "median", "evaluations": 3, "startup": 1}
    study, _ = study_of(
        space={"training.lr": {"float": [1e-4, 1e-2], "log": True}},
        search={"name": "random", "trials": 20, "pruner": pruner}, objectives={"score": "maximize"},
    )  # fmt: skip
    found = open_store()
    found.create(study)
    return found


def test_a_worse_trial_is_pruned(store: Any) -> None:
    """Below the median of the earlier trials at the same evaluation; the reason names evaluation and score."""
    for score in (0.8, 0.9):
        trial = store.study.ask()
        EarlyStopping(trial, store, SPEC).evaluated(evaluation(3, score))
        store.study.tell(trial, [score])
    worse = EarlyStopping(store.study.ask(), store, SPEC)
    with pytest.raises(optuna.TrialPruned, match=r"pruned at evaluation 1: search score 0\.1000"):
        worse.evaluated(evaluation(3, 0.1))


def test_scores_are_reported_once(store: Any) -> None:
    """An attempt that continues from a checkpoint shows the same evaluations again, and nothing is counted twice."""
    trial = store.study.ask()
    stopping = EarlyStopping(trial, store, SPEC)
    stopping.evaluated(evaluation(3, 0.5))
    stopping.evaluated(evaluation(6, 0.6))
    again = EarlyStopping(trial, store, SPEC)
    again.evaluated(evaluation(3, 0.5))
    frozen = store.frozen(trial)
    assert [row[0] for row in frozen.user_attrs[INTERIM]] == [0.5, 0.6]
    assert frozen.intermediate_values == {1: 0.5, 2: 0.6}


def test_a_trial_beyond_the_constraint_is_stopped(store: Any) -> None:
    """At its first evaluation, and the sampler is told by how much."""
    trial = store.study.ask()
    stopping = EarlyStopping(trial, store, SPEC.model_copy(update={"constraints": {"parameters": 80}}))
    with pytest.raises(optuna.TrialPruned, match="100 parameters, more than the constraint of 80"):
        stopping.evaluated(evaluation(3, 0.9))
    assert store.frozen(trial).constraints == {"parameters": 20.0}
    assert EarlyStopping(store.study.ask(), store, SPEC).constrain(1e9) == 0.0


def test_a_dominated_trial_is_pruned_whichever_way_is_better(study_of: Any, open_store: Open) -> None:
    """Of two trials of equal size the one with the higher perplexity is stopped, under `score: minimize`."""
    pruner = {"name": "dominated", "evaluations": 3, "warmup": 0}
    study, _ = study_of(
        space={"training.lr": {"float": [1e-4, 1e-2], "log": True}},
        search={"name": "random", "trials": 20, "pruner": pruner},
        objectives={"score": "minimize", "parameters": "minimize"},
    )
    found = open_store()
    found.create(study)
    trial = found.study.ask()
    EarlyStopping(trial, found, study).evaluated(evaluation(3, 5.0))
    found.study.tell(trial, [5.0, 100.0])
    EarlyStopping(found.study.ask(), found, study).evaluated(evaluation(3, 4.0))
    with pytest.raises(optuna.TrialPruned, match=r"search score 6\.0000"):
        EarlyStopping(found.study.ask(), found, study).evaluated(evaluation(3, 6.0))
