"""Overrides and storages, as every command takes them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


SETS: dict[str, tuple[list[str], Any]] = {
    "a number": (["training.epochs=2.5"], lambda rows, spec: spec["training"]["epochs"] == 2.5),
    "an exponent": (["training.lr=1e-4"], lambda rows, spec: spec["training"]["lr"] == 1e-4),
    "a mapping": (["allocator={name: spectral, rule: cost}"], lambda rows, spec: spec["allocator"]["rule"] == "cost"),
    "a dimension's list": (["seed=[3, 4, 5]"], lambda rows, spec: len(rows) == 3),
    "a fixed value for a dimension": (["seed=7"], lambda rows, spec: len(rows) == 1 and spec["seed"] == 7),
    "a new dimension": (["space.budget.mean_rank=[1, 2]"], lambda rows, spec: len(rows) == 4),
    "two at once": (["seed=0", "task.name=stsb"], lambda rows, spec: spec["task"]["name"] == "stsb" and len(rows) == 1),
    "a glob": (["allocator.ranks[*.query]=2", "allocator.name=static"], lambda rows, spec: spec["allocator"]["ranks"]),
    "the study's own": (["name=other"], lambda rows, spec: True),
}


@pytest.mark.parametrize("case", SETS)
def test_overrides(case: str, valid_study: Path) -> None:
    """Every form of `--set` changes the trials."""
    from rankopt.core.study_file import StudyFile

    sets, holds = SETS[case]
    study = StudyFile(valid_study, sets).study
    trials = [study.trial(assignment) for assignment in study.assignments()]
    assert holds(trials, trials[0].plain)


@pytest.mark.parametrize("storage", ["sqlite:////no/such/folder/s.db", "postgresql://me:secret@127.0.0.1:1/db"])
def test_a_storage_that_cannot_be_reached_is_exit_code_3(
    storage: str, here: Rankopt, valid_study: Path, tmp_path: Path
) -> None:
    """`run` and `show` print one line without the password, and run nothing."""
    words = ["run", valid_study, "--wandb", "disabled"] if storage.startswith("sqlite") else ["show", "tiny"]
    done = here(*words, "--storage", storage, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert "cannot be opened" in line
    assert "secret" not in line


def test_a_missing_storage_file_is_not_created(here: Rankopt, tmp_path: Path) -> None:
    """Reading a study never creates an empty database at a mistyped location."""
    url = f"sqlite:///{tmp_path / 'typo.db'}"
    for words in (("show", "look"), ("worker", "look", "--wandb", "disabled"), ("export", "look", "--out", "x")):
        refused = here(*words, "--storage", url, cwd=tmp_path)
        assert refused.returncode == 2
        assert f"the file {tmp_path / 'typo.db'} does not exist" in refused.stderr
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["variable", "file"])
def test_a_storage_outside_the_command_line(
    form: str, finished: tuple[Path, Any], here: Rankopt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A URL with a password need not stand on the command line."""
    url = f"sqlite:///{finished[0]}/runs/tiny/study.db"
    (tmp_path / "storage").write_text(url)
    if form == "variable":
        monkeypatch.setenv("RANKOPT_STORAGE", url)
    words = () if form == "variable" else ("--storage", "@storage")
    assert "4 complete" in here("show", "tiny", *words, cwd=tmp_path).stdout


@pytest.mark.parametrize("command", [("run", "{study}"), ("worker", "tiny"), ("show", "tiny"), ("report", "tiny")])
@pytest.mark.parametrize("url", ["postgresql://me:canary", "me:canary@host/db", "postgresql://h:1/d?password=canary"])
def test_no_message_contains_a_password(
    command: tuple[str, ...], url: str, here: Rankopt, valid_study: Path, tmp_path: Path
) -> None:
    """Whatever is wrong with the storage, one line without the password."""
    done = here(*[word.format(study=valid_study) for word in command], "--storage", url, cwd=tmp_path)
    assert done.returncode in (2, 3)
    assert "canary" not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1
