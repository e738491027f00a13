"""Studies from Python: load, run, read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rankopt

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture
def tiny(finished: tuple[Path, Any], tmp_path: Path) -> rankopt.Study:
    """The study that `rankopt run` has run, in a folder of its own."""
    shutil.copytree(finished[0] / "runs", tmp_path / "runs")
    return rankopt.Study.load("tiny", directory=tmp_path / "runs")


def test_run(tiny_study: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run prints its progress and leaves results; the second one finds them complete."""
    path = tiny_study(space={"seed": [0]})
    study = rankopt.Study.load(path, directory=tmp_path / "runs", overrides=["training.steps=4", "seed=[3, 4]"])
    assert study.spec.space["seed"] == [3, 4]
    assert study.run() is study
    assert "study tiny: 2 trials" in capsys.readouterr().out
    assert list(study.results()["seed"]) == [3, 4]
    study.run()
    assert "2 complete" in capsys.readouterr().out


def test_results(tiny: rankopt.Study) -> None:
    """One row per pattern, with the documented columns."""
    frame = tiny.results()
    assert set(frame["name"]) == {"uniform", "dylora"}
    assert frame["own"].sum() == 4
    text = rankopt.Study.results.__doc__ or ""
    documented = set(re.findall(r"`(\w+)`", text))
    assert len(documented) == 16
    assert documented <= set(frame.columns)


def test_best(tiny: rankopt.Study) -> None:
    """The front without a budget, one pattern with one."""
    limit = int(tiny.results()["kept"].max())
    best = tiny.best(budget=limit)
    assert len(best) == 1
    assert best["search"].item() == tiny.best()["search"].max()
    assert isinstance(best["pattern"].item(), dict)


def test_report(tiny: rankopt.Study, tmp_path: Path) -> None:
    """The page is written beside the results, or where it is asked for."""
    assert tiny.report() == tmp_path / "runs" / "tiny" / "report" / "index.html"
    assert tiny.report(tmp_path / "page").is_file()


def test_errors(tiny_study: Callable[..., Path], tmp_path: Path) -> None:
    """A wrong file, a study without results, and wrong data are errors that say what to do."""
    with pytest.raises(ValueError, match="no study file and no study"):
        rankopt.Study.load("absent", directory=tmp_path)
    with pytest.raises(ValueError, match=r"training\.stepz"):
        rankopt.Study.load(tiny_study(), overrides=["training.stepz=3"])
    study = rankopt.Study.load(tiny_study(task__data_dir=str(tmp_path / "absent")), directory=tmp_path / "runs")
    with pytest.raises(ValueError, match="study 'tiny' has no results"):
        study.results()
    with pytest.raises(ValueError, match="data_dir"):
        study.run()
