"""The commands that help to write a study file: `rankopt init` and `rankopt schema`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def init(name: Annotated[str, typer.Argument(help="Name of the study.")] = "my_study") -> None:
    """Write a commented study file NAME.yaml that runs as it is, offline."""
    from rankopt.core.study_file import StudyFile, check_options
    from rankopt.core.study_spec import StudySpec

    for problem in check_options(StudySpec, {"name": name, "base": {}}):
        raise ValueError(str(problem))
    path = Path(f"{name}.yaml")
    text = Path(__file__).with_name("template.yaml").read_text(encoding="utf-8").replace("{name}", name)
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except FileExistsError:
        raise ValueError(f"{path} exists already; choose another name: rankopt init NAME") from None
    trials = len(list(StudyFile(path).assignments()))
    print(f"{path}: a study of {trials} trials. Edit it, then: rankopt run {path}; rankopt report {name}")


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

    print(json.dumps(study_schema(Members(TASKS, ALLOCATORS, SEARCHES, PRUNERS)), indent=2))
