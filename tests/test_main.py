"""The entry point: an interrupt or too little memory during start-up is one line, without a traceback."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import plain_environment

INTERRUPT_AT = """
import os, signal, sys

class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
sys.argv = ["rankopt", "run", {study!r}, "--wandb", "disabled"]
from rankopt.__main__ import main
main()
"""


@pytest.mark.parametrize(
    "module", ["rankopt.cli", "typer", "rankopt.core.study_file", "rankopt.study.worker_pool", "optuna", "sqlalchemy"]
)
def test_an_interrupt_during_start_up(module: str, tiny_study: Callable[..., Path], tmp_path: Path) -> None:
    """Ctrl-C while a module is imported, with or without worker processes: exit code 130."""
    code = INTERRUPT_AT.format(module=module, study=str(tiny_study()))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, env=plain_environment()
    )
    assert (done.returncode, done.stderr, done.stdout) == (130, "rankopt: interrupted\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [200, 300, 500, 800, 1000])
def test_too_little_memory(megabytes: int, tiny_study: Callable[..., Path], tmp_path: Path) -> None:
    """Wherever memory runs out before the first trial, the last line says so and no traceback is printed."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    words = [sys.executable, "-m", "rankopt", "run", str(tiny_study(training__steps=1)), "--wandb", "disabled"]
    env = plain_environment() | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, timeout=250, env=env, preexec_fn=limit, check=False
    )
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("rankopt: ")]  # libc may add its own
    assert line.startswith(("rankopt: not enough memory", "rankopt: the process that checks the study "))
