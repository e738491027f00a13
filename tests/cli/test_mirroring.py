"""`rankopt wandb` writes W&B's runs again."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


def test_runs_are_written_again(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    """Where W&B was disabled, or its files were lost."""
    pytest.importorskip("wandb")
    folder = tmp_path / "runs" / "tiny"
    shutil.copytree(finished[0] / "runs" / "tiny", folder, ignore=shutil.ignore_patterns("wandb"))
    done = here("wandb", "tiny", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "tiny: W&B runs of 4 trials and of the study", "W&B: wandb sync runs/tiny/wandb/offline-run-*"
    ]  # fmt: skip
    assert len(list(folder.glob("wandb/offline-run-*"))) == 5


def test_an_unknown_mode(finished: tuple[Path, Any], here: Rankopt) -> None:
    done = here("wandb", "tiny", "--mode", "disabled", cwd=finished[0])
    assert done.returncode == 2
    assert done.stderr == "rankopt: --mode must be offline or online, got 'disabled'\n"
