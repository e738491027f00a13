"""The options that several commands share, and what they stand for: a study's file, its store, a place of artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rankopt.core.spec import StudySpec
    from rankopt.core.study_file import StudyFile
    from rankopt.study.storage import StudyStore

Study = Annotated[str, typer.Argument(help="A study file, or the name of a study that was run before.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Override a field of the study, for example training.epochs=3."),
]
Runs = Annotated[Path, typer.Option("--dir", help="Where studies live.")]
Storage = Annotated[str | None, typer.Option(help="An Optuna storage URL; the study's own SQLite file by default.")]
Artifacts = Annotated[
    str | None,
    typer.Option(help="Where adapters and predictions go: a folder, s3://bucket/prefix or gs://bucket/prefix."),
]
Workers = Annotated[int, typer.Option(min=1, help="Local worker processes.")]
Together = Annotated[
    int, typer.Option(min=1, help="Trials that each worker trains at once; those of one model share its passes.")
]
Wandb = Annotated[str | None, typer.Option(help="offline, online or disabled; offline where installed.")]
CheckpointSteps = Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints, not half a minute.")]
Heartbeat = Annotated[int, typer.Option(min=1, help="Seconds between a running trial's signs of life.")]
Grace = Annotated[int, typer.Option(min=2, help="Silent seconds after which a trial counts as dead.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RUNS = Path("runs")


def study_file(study: str, sets: list[str] | None, directory: Path) -> StudyFile:
    """A study's file with its overrides."""
    from rankopt.core.study_file import StudyFile

    return StudyFile(study_path(study, directory), sets or ())


def study_path(study: str, directory: Path) -> Path:
    """The file of a study, given as a file or as the name of one that was run."""
    path = Path(study)
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return path
    kept = directory / study / "study.yaml"
    if kept.is_file():
        return kept
    from rankopt.core.problems import nearest

    known = sorted(path.parent.name for path in directory.glob("*/study.yaml"))
    hint = nearest(study, known) if known else "; no study was run here yet"
    raise ValueError(f"no study file and no study in {directory}/ is called {study!r}{hint}")


def open_store(
    study: str, storage: str | None, directory: Path, artifacts: str | None = None
) -> tuple[StudyStore, StudySpec]:
    """The store of a study that was run, and its spec."""
    from rankopt.study.database import refuse_absent, sqlite_url
    from rankopt.study.storage import StudyStore

    named = storage and not Path(study).is_file()
    name = study if named else study_file(study, None, directory).study.name
    folder = directory / name
    if not storage and not (folder / "study.db").is_file():
        raise ValueError(f"study {name!r} must be run first: there is no {folder / 'study.db'}")
    if storage:
        refuse_absent(storage)
    store = StudyStore(storage or sqlite_url(folder), name, folder, artifacts=artifact_place(artifacts))
    return store, store.open()


def artifact_place(artifacts: str | None) -> str | None:
    """A place of artifacts that means the same in every process, its driver there."""
    if not artifacts:
        return None
    from rankopt.study.artifacts import artifact_store

    place = artifacts if "://" in artifacts else str(Path(artifacts).resolve())
    artifact_store(place)
    return place
