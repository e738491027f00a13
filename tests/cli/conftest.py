"""Fixtures for the commands: fresh processes, a valid study, and a finished search."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

Rankopt = Callable[..., subprocess.CompletedProcess[str]]
HEAVY = ("torch", "transformers", "datasets", "optuna", "wandb", "pandas", "sklearn", "vl_convert", "peft")


class Fresh(NamedTuple):
    """How a command ended in a process of its own."""

    code: int
    stderr: str
    imported: set[str]


@pytest.fixture(scope="session")
def fresh() -> Callable[..., Fresh]:
    """Run a command in a new process: `fresh("show", "tiny", cwd=folder)`, and see which heavy packages it imports."""

    def run(*words: object, cwd: Path) -> Fresh:
        code = f"""
import sys
sys.argv = ["rankopt", *{[str(word) for word in words]!r}]
from rankopt.cli import main
code = 0
try:
    main()
except SystemExit as end:
    code = end.code or 0
print(code, *[name for name in {HEAVY!r} if name in sys.modules], file=sys.__stdout__)
"""
        done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, timeout=280)
        number, *names = done.stdout.splitlines()[-1].split()
        return Fresh(int(number), done.stderr, set(names))

    return run


@pytest.fixture
def valid_study(tiny_study: Callable[..., Path]) -> Path:
    """A valid study of two trials."""
    return tiny_study(space={"seed": [0, 1]})


@pytest.fixture(scope="session")
def searched(
    tmp_path_factory: pytest.TempPathFactory, tiny_trial: Callable[..., dict[str, Any]], warm: Rankopt
) -> Path:
    """A folder with a finished search of ten short trials; its artifacts are in a separate folder."""
    from rankopt.core.yaml import write

    folder = tmp_path_factory.mktemp("searched")
    study = {
        "name": "look",
        "base": tiny_trial(training={"steps": 2, "batch_size": 16, "lr": 5e-3}, allocator={"name": "profile"}),
        "space": {"budget.mean_rank": {"int": [1, 4]}, "allocator.slope": {"float": [-2.0, 2.0]}},
        "search": {"name": "random", "trials": 10},
    }
    write(study, folder / "look.yaml")
    done = warm("run", "look.yaml", "--wandb", "disabled", "--artifacts", "shared", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "study look: 10 trials by random, 0 complete" in done.stdout
    assert done.stdout.splitlines()[-3].startswith("10 complete, 0 pruned, 0 failed, 0 running, 0 waiting")
    return folder
