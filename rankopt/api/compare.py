"""Several studies on one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rankopt.analysis.study_results import StudyResults
from rankopt.api.study import Study, stored_results
from rankopt.report import write_comparison
from rankopt.study.opening import open_study
from rankopt.study.results_file import read_results
from rankopt.study.results_merge import merge


def compare(
    studies: Sequence[str | Path | Study], *, folder: str | Path | None = None, directory: str | Path = "runs",
    storage: str | None = None, latex: bool = False,
) -> Path:  # fmt: skip
    """Write one page about several studies; the control of all of them is that of the first.

    Trials of two studies are paired where task, data with its splits, model, budget and seed agree. The page says what
    is not paired and why.

    Args:
        studies: study files, names of studies that were run, results files (JSON Lines), or `Study` objects.
        folder: where to (default: reports/ and the names of the studies).
        directory: contains the studies' folders.
        storage: URL of an Optuna storage that has the named studies (default: each study's SQLite file).
        latex: whether to write `tables.tex` (booktabs) and figures as PDF and PNG too.
    Returns:
        The page.
    Raises:
        ValueError: fewer than two studies, two of one name, or one that was not run or cannot be read.
        OSError: the folder cannot be written.
    Example:
        >>> compare(["compare_glue", "results.jsonl"], folder="page")    # doctest: +SKIP
    """
    found = [_read(study, Path(directory), storage) for study in studies]
    names = "-and-".join(one.study.name for one in found)
    return write_comparison(found, Path(folder) if folder else Path("reports") / names, latex=latex)


def _read(study: str | Path | Study, directory: Path, storage: str | None) -> StudyResults:
    if isinstance(study, Study):
        return study.stored()
    path = Path(study)
    if path.is_file() and path.suffix not in (".yaml", ".yml"):
        reading = read_results([path])
        return merge(reading.entries).stored(reading.problems)
    return stored_results(*open_study(str(study), storage, directory))
