"""`init` writes a study that runs; `schema` prints JSON Schema."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from rankopt.core.yaml import Document

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


def test_init(here: Rankopt, tmp_path: Path) -> None:
    """The file is valid, satisfies the schema, names what to type next, and is never overwritten."""
    done = here("init", "first", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "rankopt run first.yaml" in done.stdout
    text = (tmp_path / "first.yaml").read_text()
    assert "{name}" not in text
    assert max(map(len, text.splitlines())) <= 120
    assert here("validate", "first.yaml", cwd=tmp_path).stdout == "first.yaml: valid, 8 trials\n"
    schema = json.loads(here("schema", cwd=tmp_path).stdout)
    jsonschema.validate(Document(tmp_path / "first.yaml").data, schema, jsonschema.Draft202012Validator)
    again = here("init", "first", cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr == "rankopt: first.yaml exists already; choose another name: rankopt init NAME\n"
    assert (tmp_path / "first.yaml").read_text() == text


@pytest.mark.parametrize("name", ["a b", "../up", "a.yaml", "x" * 200, ""])
def test_init_refuses_a_name_that_a_study_cannot_have(name: str, here: Rankopt, tmp_path: Path) -> None:
    done = here("init", name, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("rankopt: name must ")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_what_init_writes_runs_as_it_is(rankopt: Rankopt, tmp_path: Path) -> None:
    """Offline, to the end: eight trials and a report."""
    assert rankopt("init", cwd=tmp_path).returncode == 0
    done = rankopt("run", "my_study.yaml", "--wandb", "disabled", "--workers", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rankopt("report", "my_study", cwd=tmp_path).returncode == 0
    assert (tmp_path / "reports" / "my_study" / "index.html").is_file()


def test_both_are_light(fresh: Callable[..., object], tmp_path: Path) -> None:
    """Writing a study file imports nothing heavy."""
    run = fresh("init", "light", cwd=tmp_path)
    assert (run.code, run.imported) == (0, set())  # type: ignore[attr-defined]
