"""Trials that follow from a study's results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankopt.core.trial_spec import TrialSpec
from rankopt.study.plan import validated
from rankopt.study.queue import enqueue
from rankopt.study.storage import StudyStore


def follow(store: StudyStore, trials: Sequence[tuple[dict[str, Any], TrialSpec]] | None = None) -> int:
    """Queue the combinations of the space and the trials that follow from the results; return how many were added.

    What is queued is a pure function of the study and its results, so any worker may call this at any time.

    Args:
        trials: the validated trials of the space; default: validate them here.
    """
    if not store.search.follows:
        return 0
    study = store.spec()
    wanted = list(trials or ((assignment, validated(study.trial(assignment))) for assignment in study.assignments()))
    results = {result.key: result for result in store.results(planned=False)}
    for assignment, spec in list(wanted):
        result = results.get(spec.key)
        if result is not None and result.status == "complete":
            wanted += [(point, validated(study.trial(point))) for point in store.search.follow(assignment, result)]
    return enqueue(store, wanted)
