"""Trials that follow from a study's results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rankopt.analysis.frame import CONTROL
from rankopt.analysis.tuning import Tuned, tuned
from rankopt.core.path import fields_without
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

    What is queued is a pure function of the study and its results, so any worker may call this at any time. What
    follows from a trial is planned right after it: a study that is stopped early then has complete configurations.

    Args:
        trials: the validated trials of the space; default: validate them here.
    """
    study = store.spec()
    if not follows(store, study):
        return 0
    wanted = list(trials or ((assignment, validated(study.trial(assignment))) for assignment in study.assignments()))
    results = {result.key: result for result in store.results(planned=False)}
    arms = tuned(study, results.values()) if study.tune else {}
    planned: list[tuple[dict[str, Any], TrialSpec]] = []
    for assignment, spec in wanted:
        planned.append((assignment, spec))
        own = [(assignment, spec)]
        if study.tune:
            own = _trials(study, _chosen(study, assignment, arms.get(spec.key)))
            planned += own
        found = [one for point, trial in own for one in _found(store, point, results.get(trial.key))]
        if study.tune and found:
            values = _best(study, arms.get(_control(study, assignment).key))
            found = [] if values is None else [{**one, **values} for one in found]
        planned += _trials(study, found)
    return enqueue(store, planned)


def _trials(study: StudySpec, points: Iterable[dict[str, Any]]) -> list[tuple[dict[str, Any], TrialSpec]]:
    return [(point, validated(study.trial(point))) for point in points]


def _found(store: StudyStore, assignment: dict[str, Any], result: TrialResult | None) -> Iterator[dict[str, Any]]:
    """What a search derives from the result of a single trial."""
    if result is not None and result.status == "complete":
        yield from store.search.follow(assignment, result)


def _chosen(study: StudySpec, assignment: dict[str, Any], arm: Tuned | None) -> Iterator[dict[str, Any]]:
    """A configuration at its best values and all seeds, once its tuning trials are finished.

    Args:
        assignment: its first tuning trial.
        arm: its tuning trials; None for the other ones.
    """
    if best := _best(study, arm):
        yield from ({**assignment, **best, "seed": seed} for seed in study.seeds)


def _best(study: StudySpec, arm: Tuned | None) -> dict[str, Any] | None:
    """The values chosen for a configuration; None before its tuning trials are finished."""
    return None if arm is None or not arm.finished or arm.best is None else study.tunings()[arm.best]


def _control(study: StudySpec, assignment: dict[str, Any]) -> TrialSpec:
    """The first tuning trial of uniform ranks in the same conditions.

    Args:
        assignment: the first tuning trial of another allocator.
    """
    return validated(study.trial({**fields_without(assignment, "allocator"), "allocator": {"name": CONTROL}}))
