"""The stored predictions of a study's trials."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import cache
from pathlib import Path

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
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "predictions.npz")
            try:
                artifacts().download(attempts().get(key, ()), f"{key}-{path.name}", path)
            except ValueError:
                return None
            return path.read_bytes()

    return read
