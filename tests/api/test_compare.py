"""Several studies on one page: from a storage, a study object and a results file."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from results_data import study as small

import rankopt
from rankopt.study.results_file import write_results
from rankopt.study.results_format import StudyRecord, TrialRecord

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def other(finished: tuple[Path, Any], tmp_path: Path) -> Path:
    """A results file: the trials of the study `tiny` under another study's name, on other data."""
    store, _ = rankopt.Study.load("tiny", directory=finished[0] / "runs")._open()
    record = StudyRecord.of(small("elsewhere"))
    moved = [
        TrialRecord.of(record.study, one.model_copy(update={"environment": one.environment | {"data": "other"}}))
        for one in store.results()
    ]
    renamed = [
        one.model_copy(update={"result": one.result.model_copy(update={"key": one.result.key[::-1]})}) for one in moved
    ]
    write_results([record, *renamed], tmp_path / "elsewhere.jsonl")
    return tmp_path / "elsewhere.jsonl"


def test_a_study_and_a_results_file(finished: tuple[Path, Any], other: Path, tmp_path: Path) -> None:
    """What differs is not paired, and the page says why."""
    tiny = rankopt.Study.load("tiny", directory=finished[0] / "runs")
    page = rankopt.compare([tiny, other], folder=tmp_path / "page")
    assert page == tmp_path / "page" / "index.html"
    text = (tmp_path / "page" / "report.md").read_text()
    assert text.startswith("# tiny and elsewhere")
    assert "elsewhere and tiny are not paired on" in text


def test_the_command(
    finished: tuple[Path, Any], other: Path, here: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Names are found in a folder, and a study that was not run is one line."""
    runs = finished[0] / "runs"
    done = here("compare", "tiny", other, "--dir", runs, "--out", "page", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "page/index.html\n"
    for words, error in (
        (("tiny",), "compare needs at least two studies, got 1"),
        (("tiny", "nothing"), "is called 'nothing'"),
        (("tiny", "tiny"), "studies must have different names, got 'tiny' twice"),
    ):
        failed = here("compare", *words, "--dir", runs, "--out", "none", cwd=tmp_path)
        assert failed.returncode == 2
        assert error in failed.stderr
        assert len(failed.stderr.splitlines()) == 1
        assert not (tmp_path / "none").exists()
