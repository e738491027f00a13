"""The stored predictions of a study's trials."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import cache

from optuna.trial import FrozenTrial

from rankopt.study.attempts import keys
from rankopt.study.storage import StudyStore


def stored_predictions(store: StudyStore) -> Callable[[str], bytes | None]:
    """A function from a trial's key to the bytes of its `predictions.npz`, None where they are not stored.

    The storage's attempts are read once, at the first call.
    """

    @cache
    def attempts() -> dict[str, list[FrozenTrial]]:
        found: dict[str, list[FrozenTrial]] = defaultdict(list)
        for attempt in store.trials():
            for key in keys(attempt):
                found[key].append(attempt)
        return found

    artifacts = cache(lambda: store.artifacts)

    def read(key: str) -> bytes | None:
        return artifacts().read(attempts().get(key, ()), f"{key}-predictions.npz")

    return read
