"""Trials that follow from a study's results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rankopt.analysis.frame import CONTROL
from rankopt.analysis.tuning import Tuned, tuned
from rankopt.core.path import fields_of, split_path
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
        if study.tune:
            points = list(_chosen(study, assignment, arms.get(spec.key)))
            points += [
                found for point in points for found in _retrained(store, study, arms, assignment, point, results)
            ]
        else:
            points = list(_found(store, assignment, results.get(spec.key)))
        planned += ((point, validated(study.trial(point))) for point in points)
    return enqueue(store, planned)


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


def _retrained(
    store: StudyStore, study: StudySpec, arms: Mapping[str, Tuned], assignment: dict[str, Any], point: dict[str, Any],
    results: Mapping[str, TrialResult],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """What a search derives from the result of a tuned trial, at the values chosen for the control.

    Args:
        arms: the tuning trials of all configurations.
        assignment: the first tuning trial of the configuration.
        point: the tuned trial.
    """
    found = list(_found(store, point, results.get(validated(study.trial(point)).key)))
    if not found:
        return
    fields = {path: value for dimension, values in assignment.items() for path, value in fields_of(dimension, values)}
    same = {path: value for path, value in fields.items() if split_path(path)[0] != "allocator"}
    control = validated(study.trial({**same, "allocator": {"name": CONTROL}}))
    if best := _best(study, arms.get(control.key)):
        yield from ({**pattern, **best} for pattern in found)
