"""`results export`, `results import` and `report --from`: results without a shared storage."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rankopt.core.yaml import write

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def halves(
    tmp_path_factory: pytest.TempPathFactory, tiny_trial: Callable[..., dict[str, Any]], rankopt: Rankopt
) -> tuple[Path, Path]:
    """Two folders in which `rankopt run` ran one half each of the study `half`, and exported it to results.jsonl."""
    folders = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp(f"half{seed}")
        base = tiny_trial(training={"steps": 2, "batch_size": 16, "lr": 5e-3})
        write({"name": "half", "base": base, "space": {"seed": [0, 1]}}, folder / "half.yaml")
        done = rankopt("run", "half.yaml", "--wandb", "disabled", "--set", f"seed=[{seed}]", cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        done = rankopt("results", "export", "half", "--out", "results.jsonl", cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "results.jsonl: 1 results\n"
        folders.append(folder)
    return folders[0], folders[1]


def test_two_half_studies_end_in_one_report(
    halves: tuple[Path, Path], fresh: Callable[..., Any], here: Rankopt, tmp_path: Path
) -> None:
    """Without a shared storage, and without importing Optuna or torch."""
    first, second = (folder / "results.jsonl" for folder in halves)
    done = fresh("report", "--from", first, "--from", second, "--out", "page", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert not done.imported & {"optuna", "torch", "transformers", "datasets", "peft"}
    text = (tmp_path / "page" / "report.md").read_text()
    assert "| results | 2 trials |" in text
    assert "| seeds | 0 and 1 |" in text
    assert "0 of 2 planned trials have no complete result" in text
    one = here("report", "--from", first, "--out", "one", cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    assert "| results | 1 trial |" in (tmp_path / "one" / "report.md").read_text()


def test_report_of_a_file_equals_that_of_the_storage(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    assert here("results", "export", "tiny", "--out", tmp_path / "r.jsonl", cwd=finished[0]).returncode == 0
    assert here("report", "tiny", "--out", tmp_path / "stored", cwd=finished[0]).returncode == 0
    assert here("report", "--from", "r.jsonl", "--out", "filed", cwd=tmp_path).returncode == 0
    stored, filed = ((tmp_path / name / "data.csv").read_bytes() for name in ("stored", "filed"))
    assert stored == filed


def test_import_continues_a_study(halves: tuple[Path, Path], here: Rankopt, rankopt: Rankopt, tmp_path: Path) -> None:
    """`run` on a new machine trains only what no file has; importing twice adds nothing."""
    shutil.copy(halves[0] / "half.yaml", tmp_path)
    first, second = (folder / "results.jsonl" for folder in halves)
    done = here("results", "import", first, "--into", "half.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "study half: 1 results added, 0 there already, 1 in all\n"
    done = here("results", "import", first, second, cwd=tmp_path)
    assert done.stdout == "study half: 1 results added, 1 there already, 2 in all\n"
    assert "2 complete, 0 failed" in here("show", "half", cwd=tmp_path).stdout
    done = rankopt("run", "half.yaml", "--wandb", "disabled", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "study half: 2 trials, 0 new, 2 complete" in done.stdout
    assert not list((tmp_path / "runs" / "half").glob("trials/*"))


def test_a_damaged_line_costs_only_itself(halves: tuple[Path, Path], here: Rankopt, tmp_path: Path) -> None:
    """The other results are reported and imported; the line is named, and the exit code is 2."""
    first, second = ((folder / "results.jsonl").read_text() for folder in halves)
    (tmp_path / "r.jsonl").write_text(first + second[: len(second) // 2] + "\n" + second)
    for command in (("report", "--from", "r.jsonl"), ("results", "import", "r.jsonl")):
        done = here(*command, cwd=tmp_path)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("rankopt: r.jsonl:")
        assert line.endswith("export it again, or delete the line")
    assert "2 complete" in here("show", "half", cwd=tmp_path).stdout


def test_report_needs_a_study_or_a_file(here: Rankopt, tmp_path: Path) -> None:
    done = here("report", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2, "rankopt: report needs a STUDY, or results files: rankopt report --from results.jsonl\n"
    )  # fmt: skip
    done = here("report", "--from", "none.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2, "rankopt: a results file must be given, got none.jsonl: No such file or directory\n"
    )  # fmt: skip
