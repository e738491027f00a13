"""Trials that follow from a study's results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rankopt.analysis.tuning import tuned
from rankopt.core.result import TrialResult
from rankopt.core.study_spec import StudySpec
from rankopt.core.trial_spec import TrialSpec
from rankopt.study.plan import validated
from rankopt.study.queue import enqueue
from rankopt.study.storage import StudyStore

Trials = Sequence[tuple[dict[str, Any], TrialSpec]]


def follows(store: StudyStore, study: StudySpec) -> bool:
    """Whether results lead to further trials."""
    return store.search.follows or bool(study.tune)


def follow(store: StudyStore, trials: Trials | None = None) -> int:
    """Queue the combinations of the space and the trials that follow from the results; return how many were added.

    What is queued is a pure function of the study and its results, so any worker may call this at any time.

    Args:
        trials: the validated trials of the space; default: validate them here.
    """
    study = store.spec()
    if not follows(store, study):
        return 0
    wanted = list(trials or ((assignment, validated(study.trial(assignment))) for assignment in study.assignments()))
    results = {result.key: result for result in store.results(planned=False)}
    points = _tuned(study, wanted, results) if study.tune else _found(store, wanted, results)
    return enqueue(store, [*wanted, *((point, validated(study.trial(point))) for point in points)])


def _found(store: StudyStore, wanted: Trials, results: dict[str, TrialResult]) -> Iterator[dict[str, Any]]:
    """What a search derives from the results of single trials."""
    for assignment, spec in wanted:
        result = results.get(spec.key)
        if result is not None and result.status == "complete":
            yield from store.search.follow(assignment, result)


def _tuned(study: StudySpec, wanted: Trials, results: dict[str, TrialResult]) -> Iterator[dict[str, Any]]:
    """Every configuration whose tuning trials are finished, at its best values and all seeds."""
    found = tuned(study, results.values())
    for assignment, spec in wanted:
        arm = found.get(spec.key)  # at the first combination only: one of them is the configuration's name
        if arm is not None and arm.finished and arm.best is not None:
            best = study.tunings()[arm.best]
            yield from ({**assignment, **best, "seed": seed} for seed in study.seeds)
