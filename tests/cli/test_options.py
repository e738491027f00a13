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
        assert f"there is no file {tmp_path / 'typo.db'}" in refused.stderr
    assert not any(tmp_path.iterdir())
