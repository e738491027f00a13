"""Export a trained adapter from a study."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from rankopt.analysis.frame import tidy
from rankopt.analysis.search import best
from rankopt.core.folders import new_folder
from rankopt.core.result import Point, TrialResult
from rankopt.study.attempts import keys
from rankopt.study.storage import StudyStore


class Exported(NamedTuple):
    """A trial's result, and the point of it that was exported."""

    result: TrialResult
    point: Point


def export_adapter(
    store: StudyStore, out: Path, key: str | None = None, point: str | None = None, budget: int | None = None
) -> Exported:
    """Unpack what a trial saved into a new folder, truncated to one of its patterns. A failure leaves no folder.

    Without a key, export what `analysis.search.best` finds: the configuration and pattern with the best mean search
    score, at the seed with the best search score.

    Args:
        store: an open study.
        out: the folder to make.
        key: the trial's key, or a prefix of it.
        point: the pattern's label (default: the trial's own pattern).
        budget: upper limit on the adapter parameters of the best pattern.
    Raises:
        ValueError: no complete trial, an unknown key or point, a missing artifact, or a folder that exists.
    """
    complete = [result for result in store.results(planned=key is None) if result.status == "complete"]
    if not complete:
        raise ValueError(f"study {store.name!r} has no complete trial to export")
    study = store.spec()
    own = [result for result in complete if not study.is_tuning(result.spec)]
    exported = _best(store.name, own, budget) if key is None else _named(store.name, complete, key, point)
    attempts = [trial for trial in store.trials() if exported.result.key in keys(trial)]
    with new_folder(out) as draft, tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch, f"{exported.point.adapter}.zip")
        store.artifacts.download(attempts, f"{exported.result.key}-{archive.name}", archive)
        shutil.unpack_archive(archive, draft)
        if exported.point != exported.result.own and exported.point.pattern:
            from rankopt.lowrank.export import cut_peft  # torch is slow to import

            cut_peft(draft, exported.point.pattern)
    return exported


def _named(study: str, complete: list[TrialResult], key: str, label: str | None) -> Exported:
    result = next((result for result in complete if key and result.key.startswith(key)), None)
    if result is None:
        raise ValueError(
            f"--trial must be the key of a complete trial, got {key!r}; list them with `rankopt show {study}`"
        )
    points = {point.label: point for point in result.points}
    if label is not None and label not in points:
        raise ValueError(f"--point must be one of the trial's ({', '.join(points)}), got {label!r}")
    return Exported(result, points[label] if label else result.own)


def _best(study: str, complete: list[TrialResult], budget: int | None) -> Exported:
    points = tidy(complete)
    if len(settings := sorted(set(points["setting"]))) > 1:
        raise ValueError(
            f"--trial is required, because scores on {' and '.join(settings)} cannot be compared; "
            f"list the best trials with `rankopt best {study}`"
        )
    found = best(points, budget)
    if found.empty:
        least = min(point.kept for result in complete for point in result.points)
        raise ValueError(f"--budget must be at least {least:,}, the size of the smallest adapter, got {budget:,}")
    row = found.sort_values(["gain", "kept", "key"], ascending=[False, True, True]).iloc[0]
    result = next(result for result in complete if result.key == row["key"])
    return Exported(result, next(point for point in result.points if point.label == row["point"]))
