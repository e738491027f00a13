"""Finding a study by its file or its name."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from rankopt.study.opening import open_study, study_path

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def test_a_path_or_a_name(finished: tuple[Path, Any]) -> None:
    """A file is itself, a name is what was kept when the study was run, and the nearest name is suggested."""
    folder, _ = finished
    assert study_path(str(folder / "tiny.yaml"), folder / "runs") == folder / "tiny.yaml"
    assert study_path("tiny", folder / "runs") == folder / "runs" / "tiny" / "study.yaml"
    with pytest.raises(ValueError, match="is called 'tinny'; did you mean 'tiny'"):
        study_path("tinny", folder / "runs")
    with pytest.raises(ValueError, match="contains no study"):
        study_path("tiny", folder / "elsewhere")


def test_a_url_is_refused_unseen(tmp_path: Path) -> None:
    """A storage's URL in place of the study may contain a password."""
    url = "postgresql://me:canary@host/db"
    for attempt in (lambda: study_path(url, tmp_path), lambda: open_study(url, "sqlite:///x.db", tmp_path)):
        with pytest.raises(ValueError, match="with --storage") as caught:
            attempt()
        assert "canary" not in str(caught.value)


def test_open(finished: tuple[Path, Any], tmp_path: Path) -> None:
    """The stored spec and the results, by name and by file; a study that was not run has none."""
    folder, _ = finished
    shutil.copytree(folder / "runs", tmp_path / "runs")
    for name in ("tiny", str(folder / "tiny.yaml")):
        store, spec = open_study(name, None, tmp_path / "runs")
        assert spec.name == "tiny"
        assert len(store.results()) == 4
    with pytest.raises(ValueError, match="study 'tiny' has no results"):
        open_study(str(folder / "tiny.yaml"), None, tmp_path)
