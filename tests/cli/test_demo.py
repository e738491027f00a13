"""`rankopt demo`; `tests/test_wheel.py` runs it from an installed wheel."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rankopt.cli import demo

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


def test_its_study_is_the_published_one() -> None:
    """The package's study is the one in studies/, and not a copy that could differ."""
    studies = Path(__file__).parents[2] / "studies"
    assert demo.QUICKSTART.resolve() == studies / "quickstart.yaml"


def test_demo(tiny_study: Callable[..., Path], here: Rankopt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs its study, writes the report beside the results, and names the next commands."""
    monkeypatch.setattr(demo, "QUICKSTART", tiny_study("quickstart", {"seed": [0]}))
    done = here("demo", "--workers", 1, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("Next: rankopt init my-study")
    pages = [line for line in done.stdout.splitlines() if "index.html" in line]
    assert pages == [f"Page: {Path('runs', 'quickstart', 'report', 'index.html')}"]
    assert (tmp_path / "runs" / "quickstart" / "report" / "index.html").is_file()
