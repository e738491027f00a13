"""Taking a trained adapter out of a study."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from rankopt.core.folders import new_folder
from rankopt.core.result import TrialResult
from rankopt.study.ledger import keys
from rankopt.study.storage import StudyStore


def export_adapter(store: StudyStore, out: Path, key: str | None = None, budget: int | None = None) -> TrialResult:
    """Unpack a trial's adapter into a new folder, whole or not at all.

    Args:
        store: an open study.
        out: the folder to make.
        key: the trial's key, or its beginning; the best search score when absent.
        budget: adapter parameters that the best one keeps at most.
    Returns:
        The trial's result.
    Raises:
        ValueError: no complete trial, an unknown key, an artifact that is gone, or a folder that exists.
    """
    complete = [result for result in store.results(planned=key is None) if result.status == "complete"]
    if not complete:
        raise ValueError(f"study {store.name!r} must have a complete trial to export, it has none")
    found = [result for result in complete if key is None or result.key.startswith(key)]
    if not found:
        raise ValueError(f"--trial must be the key of a complete trial, got {key!r}; rankopt show {store.name}")
    if budget is not None and not (found := [result for result in found if result.own.kept <= budget]):
        least = min(result.own.kept for result in complete)
        raise ValueError(f"--budget must be at least {least:,}, which the smallest adapter keeps, got {budget:,}")
    result = min(found, key=lambda result: (-result.score("search"), result.own.kept, result.key))
    attempts = [trial for trial in store.trials() if result.key in keys(trial)]
    with new_folder(out) as draft, tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch, "adapter.zip")
        store.download(attempts, f"{result.key}-{archive.name}", archive)
        shutil.unpack_archive(archive, draft)
    return result
