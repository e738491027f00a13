"""Find a study's file and open its store, by a path or by the name under which it was run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from rankopt.core.errors import nearest
from rankopt.core.study_file import StudyFile
from rankopt.core.study_spec import StudySpec
from rankopt.study.storage_url import refuse_missing_file, sqlite_url

if TYPE_CHECKING:
    from rankopt.study.storage import StudyStore


def study_path(study: str, directory: Path) -> Path:
    """The study file itself, or the stored file of a study that was run.

    Args:
        study: a path, or a name.
        directory: contains the studies' folders.
    Raises:
        ValueError: there is neither.
    """
    _refuse_url(study)
    path = Path(study)
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return path
    kept = directory / study / "study.yaml"
    if kept.is_file():
        return kept
    known = sorted(path.parent.name for path in directory.glob("*/study.yaml"))
    hint = nearest(study, known) if known else f"; {directory}/ contains no study"
    raise ValueError(f"no study file and no study in {directory}/ is called {study!r}{hint}")


def _refuse_url(study: str) -> None:
    """Raise a ValueError without the text if it is a URL, which may contain a password."""
    if "://" in study:
        raise ValueError("a study must be a file or a name, got a URL; give the URL of a storage with --storage")


def open_study(
    study: str, storage: str | None, directory: Path, *, artifacts: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[StudyStore, StudySpec]:  # fmt: skip
    """Open the store of a study that was run, and read its spec.

    Args:
        study: a path, or a name.
        storage: URL of the storage (default: the study's SQLite file).
        directory: contains the studies' folders.
        artifacts: location of adapters and predictions (default: the study's folder).
        say: is told about records that cannot be read.
    Raises:
        ValueError: the study has no results, or the storage cannot be opened.
    """
    _refuse_url(study)
    path = Path(study) if storage else study_path(study, directory)
    # a study that was run has the name of its folder; reading its file would validate every trial
    name = StudyFile(path).study.name if path.is_file() and path == Path(study) else study
    folder = directory / name
    if not storage and not (folder / "study.db").is_file():
        raise ValueError(
            f"study {name!r} has no results: {folder / 'study.db'} does not exist; `rankopt run` creates it"
        )
    if storage:
        refuse_missing_file(storage)
    from rankopt.study.storage import StudyStore  # imports Optuna, which finding a file does not need

    store = StudyStore(storage or sqlite_url(folder), name, folder, artifacts=artifacts, say=say)
    return store, store.open()
