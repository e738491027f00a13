"""The commands that help to write a study file: `rankopt init` and `rankopt schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from rankopt.cli.options import Completion, Label, Prompt, Text
from rankopt.core.text import plural


def init(
    name: Annotated[str, typer.Argument(help="Name of the study.")] = "my_study",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Write a study of these training rows: a CSV, TSV, JSON, JSON Lines, Parquet or Arrow file, a folder "
            "of such files, a pattern, or a folder written by save_to_disk.",
        ),
    ] = None,
    report: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="With --data: rows whose scores are reported (default: a fifth of the training rows)."
        ),
    ] = None,
    text: Text = None,
    label: Label = None,
    prompt: Prompt = None,
    completion: Completion = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="With --data: a folder, or a name on the hub (default: sentence-transformers/all-MiniLM-L6-v2).",
        ),
    ] = None,
) -> None:
    """Write a commented study file NAME.yaml that runs as it is: on a generated task, offline, or on your own data."""
    from rankopt.core.study_file import StudyFile, check_options
    from rankopt.core.study_spec import StudySpec

    for problem in check_options(StudySpec, {"name": name, "base": {}}):
        raise ValueError(str(problem))
    path = Path(f"{name}.yaml")
    if path.exists():
        raise ValueError(f"{path} exists already; choose another name: rankopt init NAME")
    if data is None:
        if report or text or label or prompt or completion:
            raise ValueError(
                "--report and the columns (--text, --label, --prompt, --completion) describe the rows of --data FILE, "
                "which is missing"
            )
        content = Path(__file__).with_name("template.yaml").read_text(encoding="utf-8").replace("{name}", name)
        found: list[str] = []
    else:
        from rankopt.cli.own_study import own_study

        content, found = own_study(
            name, data, report, model, text=text or (), label=label, prompt=prompt, completion=completion
        )
    with path.open("x", encoding="utf-8", newline="\n") as file:
        file.write(content)
    for line in found:
        print(line)
    study = StudyFile(path)
    trials, more = len(list(study.assignments())), ", and more that follow from their results"
    print(f"{path}: a study of {plural(trials, 'trial')}{more if study.study.tune else ''}.")
    print(f"Edit it, then: rankopt run {path}; rankopt report {name}")


def schema() -> None:
    """Print a JSON Schema of study files, for completion and validation in an editor.

    For the YAML language server (VS Code, Neovim, ...): save it with `rankopt schema > study.schema.json`, and begin a
    study file with the line `# yaml-language-server: $schema=study.schema.json`.
    """
    from rankopt.allocators import ALLOCATORS
    from rankopt.core.study_schema import Members, study_schema
    from rankopt.search import SEARCHES
    from rankopt.search.pruners import PRUNERS
    from rankopt.tasks import TASKS
    from rankopt.tuners import TUNERS

    print(json.dumps(study_schema(Members(TASKS, ALLOCATORS, TUNERS, SEARCHES, PRUNERS)), indent=2))
