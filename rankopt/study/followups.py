"""The trials that a study runs because of its results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankopt.core.trial_spec import TrialSpec
from rankopt.study.plan import validated
from rankopt.study.queue import enqueue
from rankopt.study.storage import StudyStore


def follow(store: StudyStore, trials: Sequence[tuple[dict[str, Any], TrialSpec]] | None = None) -> int:
    """Queue what the results so far ask for, beside the combinations of the space; returns how many were added.

    A pure function of the study and its results, so that any worker may do it at any time, and more than once.

    Args:
        trials: of those combinations, where they are checked already.
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
