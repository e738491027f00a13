"""Arguments and options shared by several commands, and how they find a study's file and its store."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rankopt.cli import printing

if TYPE_CHECKING:
    from rankopt.core.study_file import StudyFile
    from rankopt.core.study_spec import StudySpec
    from rankopt.study.storage import StudyStore
    from rankopt.study.wandb_run import WandbMode

Study = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study file, or the name of a study that was run before.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Override a field, for example training.epochs=3, or a dimension: space.seed=[0,1]; repeatable.",
    ),
]
Runs = Annotated[Path, typer.Option("--dir", metavar="FOLDER", help="Folder that contains the studies' folders.")]


def _read_storage(text: str | None) -> str | None:
    if text is None:
        return None
    from rankopt.study.storage_url import read_storage

    return read_storage(text)


Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL|@FILE", envvar="RANKOPT_STORAGE", callback=_read_storage,
        help="Use this Optuna storage: a URL, or @FILE to read the URL from a file (default: the study's SQLite file).",
    ),
]  # fmt: skip
SharedStorage = Annotated[
    str,
    typer.Option(
        "--storage", metavar="URL|@FILE", envvar="RANKOPT_STORAGE", callback=_read_storage,
        help="Use this Optuna storage: a URL, or @FILE to read the URL from a file.",
    ),
]  # fmt: skip
Artifacts = Annotated[
    str | None,
    typer.Option(
        metavar="LOCATION",
        help="Store adapters and predictions in a folder, s3://bucket/prefix or gs://bucket/prefix "
        "(default: the study's folder).",
    ),
]
Workers = Annotated[int, typer.Option(min=1, metavar="N", help="Start N worker processes.")]
Together = Annotated[
    int, typer.Option(min=1, metavar="N", help="Train up to N trials of one model jointly in each worker.")
]


def _read_device(text: str) -> str:
    from rankopt.study.devices import DEVICES

    if text not in DEVICES:
        raise ValueError(f"--device must be {', '.join(DEVICES[:-1])} or {DEVICES[-1]}, got {text!r}")
    return text


Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE", callback=_read_device,
        help="Train on cuda, mps or cpu; auto is the first that works. Several workers share several GPUs evenly.",
    ),
]  # fmt: skip
Wandb = Annotated[
    str | None,
    typer.Option(
        metavar="MODE", help="Log to W&B: offline, online or disabled (default: offline if wandb is installed)."
    ),
]
CheckpointSteps = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Checkpoint every N steps (default: every 30 s).")
]
Heartbeat = Annotated[
    int, typer.Option(min=1, metavar="N", help="Send a heartbeat for running trials every N seconds.")
]
Grace = Annotated[
    int, typer.Option(min=2, metavar="N", help="Consider a trial dead after N seconds without a heartbeat.")
]
Text = Annotated[
    list[str] | None,
    typer.Option(metavar="COLUMN", help="With --data: a text column; twice for a pair (default: look for it)."),
]
Label = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="With --data: the label column (default: look for it).")
]
Prompt = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="With --data and a language model: the column of prompts, or a text with columns in braces, such as "
        "'{title}: {body} ' (default: look for it).",
    ),
]
Completion = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="With --data and a language model: the column of completions (default: look for it)."
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", metavar="FOLDER", help="Read <task>/<split>.parquet there (default: the hub)."),
]
MaxLength = Annotated[
    int | None,
    typer.Option("--max-length", min=4, metavar="N", help="Truncate inputs to N tokens (default: from the data)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Latex = Annotated[bool, typer.Option("--latex", help="Also write tables.tex (booktabs), and figures as PDF and PNG.")]
RUNS = Path("runs")


def study_file(study: str, sets: list[str] | None, directory: Path) -> StudyFile:
    """Read a study's file and apply the overrides."""
    from rankopt.core.study_file import StudyFile
    from rankopt.study.opening import study_path

    return StudyFile(study_path(study, directory), sets or ())


def open_store(
    study: str, storage: str | None, directory: Path, artifacts: str | None = None
) -> tuple[StudyStore, StudySpec]:
    """Open the store of a study that was run, and read its spec."""
    from rankopt.study.opening import open_study

    collect_rarely()
    return open_study(study, storage, directory, artifacts=artifact_location(artifacts), say=printing.warn)


def collect_rarely() -> None:
    """Collect garbage rarely: thousands of results are many objects, none of them garbage, and would take seconds."""
    gc.set_threshold(1_000_000, 100, 100)


def wandb_mode(option: str, given: str, *known: WandbMode) -> WandbMode:
    """A mode of W&B that this machine can use.

    Args:
        option: that gave it, for the error.
        known: the modes that it may be.
    Raises:
        ValueError: another word, or a mode that lacks the package or a login; one line.
    """
    from rankopt.study.wandb_run import check_wandb_mode

    for mode in known:
        if mode == given:
            check_wandb_mode(mode)
            return mode
    *others, last = known
    raise ValueError(f"{option} must be {', '.join(others)} or {last}, got {given!r}")


def artifact_location(artifacts: str | None) -> str | None:
    """An artifact location that is valid in every process; its driver must be installed."""
    if not artifacts:
        return None
    from rankopt.study.artifact_stores import artifact_store

    location = artifacts if "://" in artifacts else str(Path(artifacts).resolve())
    artifact_store(location)
    return location
