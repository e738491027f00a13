"""The command line as a whole: help, exit codes, wrong input."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Rankopt = Callable[..., subprocess.CompletedProcess[str]]

ADAPTERS = ("analyze", "compress", "merge", "convert")


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        *[[c, "--help"] for c in ("run", "validate", "plan", "list", "show", "report", "export", *ADAPTERS)],
    ],
)
def test_help_imports_nothing_heavy(words: list[str], fresh: Callable[..., Any], tmp_path: Path) -> None:
    """Help and version answer at once, because they import no heavy package."""
    run = fresh(*words, cwd=tmp_path)
    assert (run.code, run.imported) == (0, set())


def test_help_documents_exit_codes(rankopt: Rankopt, tmp_path: Path) -> None:
    """The first help page lists the exit codes; without a command, help is printed."""
    text = " ".join(rankopt("--help", cwd=tmp_path).stdout.split())
    assert "0 done, 1 trials failed, 2 wrong input, 3 storage or disk error, 130 interrupted" in text
    done = rankopt(cwd=tmp_path)
    assert "Usage" in done.stdout + done.stderr


REFUSED: dict[str, tuple[list[str], str]] = {
    "an override without a value": (["validate", "{study}", "--set", "seed"], "must be given path=value, got 'seed'"),
    "an override of nothing": (
        ["validate", "{study}", "--set", "trainin.lr=1"],
        "--set trainin.lr=1: base.trainin is not a known field; did you mean 'training'?",
    ),
    "an override that does not go with the file": (
        ["validate", "{study}", "--set", "budget.ranks=3"],
        "--set budget.ranks=3: base.budget is not valid: give exactly one of mean_rank, ranks, parameters",
    ),
    "no such file": (["validate", "nothing.yaml"], "nothing.yaml: no such file"),
    "no such study": (["show", "tinny"], "is called 'tinny'; did you mean 'tiny'?"),
    "a kind that cannot be listed": (["list", "alocators"], "got 'alocators'; did you mean 'allocators'?"),
    "a W&B mode": (["run", "{study}", "--wandb", "of"], "--wandb must be offline, online or disabled, got 'of'"),
    "a study never run": (["show", "{study}"], "study 'tiny' has no results"),
    "a study never run, exported": (["export", "{study}", "--out", "x"], "study 'tiny' has no results"),
    "a folder that exists": (["export", "tiny", "--out", "runs"], "--out must not exist yet, got runs"),
    "no workers": (["run", "{study}", "--workers", "0"], "--workers"),
    "layers of no model": (["list", "layers", "--model", "/no/model"], "model.name must be a local folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_exit_code_2(case: str, here: Rankopt, valid_study: Path, tmp_path: Path) -> None:
    """One line on standard error, nothing on standard output, no traceback."""
    words, message = REFUSED[case]
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    shutil.copy(valid_study, tmp_path / "runs" / "tiny" / "study.yaml")
    done = here(*[word.format(study=valid_study) for word in words], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    if case != "no workers":  # the argument parser adds a usage line
        assert done.stderr.startswith("rankopt: ")
        assert len(done.stderr.splitlines()) == 1


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    """`rankopt list tasks | head -1` prints no traceback."""
    command = f"{sys.executable} -m rankopt list tasks --json | head -1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
