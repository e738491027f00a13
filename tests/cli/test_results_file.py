"""`results export`, `results import` and `report --from`: results without a shared storage."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import plain_environment

from rankopt.core.yaml import write
from rankopt.study.results_file import read_results
from rankopt.study.results_format import TrialRecord

# the package ignores this warning itself; pytest resets filters before every test
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Rankopt = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def halves(
    tmp_path_factory: pytest.TempPathFactory, tiny_trial: Callable[..., dict[str, Any]], warm: Rankopt
) -> tuple[Path, Path]:
    """Two folders in which `rankopt run` ran one half each of the study `half`, and exported it to results.jsonl."""
    folders = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp(f"half{seed}")
        base = tiny_trial(training={"steps": 2, "batch_size": 16, "lr": 5e-3})
        write({"name": "half", "base": base, "space": {"seed": [0, 1]}}, folder / "half.yaml")
        done = warm("run", "half.yaml", "--wandb", "disabled", "--set", f"seed=[{seed}]", cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        done = warm("results", "export", "half", "--out", "results.jsonl", cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "results.jsonl: 1 result\n"
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
    both = ("--from", first, "--from", second)
    named = here("report", halves[0] / "half.yaml", *both, "--out", "named", cwd=tmp_path)
    assert named.returncode == 0, named.stderr
    assert "0 of 2 planned trials have no complete result" in (tmp_path / "named" / "report.md").read_text()
    one = here("report", "--from", first, "--out", "one", cwd=tmp_path)
    assert one.returncode == 0, one.stderr
    assert "| results | 1 trial |" in (tmp_path / "one" / "report.md").read_text()


def test_report_of_a_file_equals_that_of_the_storage(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    assert here("results", "export", "tiny", "--out", tmp_path / "r.jsonl", cwd=finished[0]).returncode == 0
    assert here("report", "tiny", "--out", tmp_path / "stored", cwd=finished[0]).returncode == 0
    assert here("report", "--from", "r.jsonl", "--out", "filed", cwd=tmp_path).returncode == 0
    stored, filed = ((tmp_path / name / "data.csv").read_bytes() for name in ("stored", "filed"))
    assert stored == filed


def test_import_continues_a_study_of_perplexities(here: Rankopt, warm: Rankopt, tmp_path: Path) -> None:
    """The direction of the score follows the metric in a study that an import creates, too."""
    text = (
        "name: words\nbase:\n  task: {name: mini-text, train_examples: 8, search_examples: 8, report_examples: 8}\n"
        "  model: {name: mini-decoder}\n  allocator: {name: uniform}\n  budget: {mean_rank: 1}\n"
        "  training: {steps: 1, batch_size: 2}\nspace:\n  seed: [0]\nsearch: {name: grid}\n"
    )
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "words.yaml").write_text(text)
    done = warm("run", "words.yaml", "--wandb", "disabled", "--results", "r.jsonl", cwd=first)
    assert done.returncode == 0, done.stdout + done.stderr
    done = here("results", "import", first / "r.jsonl", "--into", "words.yaml", cwd=second)
    assert done.returncode == 0, done.stderr
    done = warm("run", "words.yaml", "--wandb", "disabled", cwd=second)
    assert "study words: 1 trial, 0 new, 1 complete" in done.stdout, done.stderr


def test_import_continues_a_study(halves: tuple[Path, Path], here: Rankopt, warm: Rankopt, tmp_path: Path) -> None:
    """`run` on a new machine trains only what no file has; importing twice adds nothing."""
    shutil.copy(halves[0] / "half.yaml", tmp_path)
    first, second = (folder / "results.jsonl" for folder in halves)
    done = here("results", "import", first, "--into", "half.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "study half: 1 result added, 0 there already, 1 in all\n"
    done = here("results", "import", first, second, cwd=tmp_path)
    assert done.stdout == "study half: 1 result added, 1 there already, 2 in all\n"
    assert "2 complete, 0 failed" in here("show", "half", cwd=tmp_path).stdout
    done = warm("run", "half.yaml", "--wandb", "disabled", cwd=tmp_path)
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
    (tmp_path / "some.jsonl").write_text("")
    for words in (("none.jsonl",), ("--from", "some.jsonl", "none.jsonl")):  # the second one in the study's place
        done = here("report", *words, cwd=tmp_path)
        assert done.stderr == "rankopt: a results file must be given, got none.jsonl: No such file or directory\n"
    (tmp_path / "A").mkdir()
    done = here("report", "--from", "A", cwd=tmp_path)
    assert done.returncode == 2
    assert "got the folder A: write its study's file first, with rankopt results export STUDY" in done.stderr


def test_run_keeps_a_results_file(
    tiny_trial: Callable[..., dict[str, Any]], warm: Rankopt, here: Rankopt, tmp_path: Path
) -> None:
    """Killed in the middle, it leaves a valid file; on another machine, without the storage, the rest is run."""
    base = tiny_trial(training={"steps": 40, "batch_size": 16, "lr": 5e-3})
    write({"name": "kept", "base": base, "space": {"seed": [0, 1, 2, 3]}}, tmp_path / "kept.yaml")
    command = [sys.executable, "-m", "rankopt", "run", "kept.yaml", "--wandb", "disabled", "--results", "out/r.jsonl"]
    path = tmp_path / "out" / "r.jsonl"
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=plain_environment(), stdout=log, stderr=log, start_new_session=True
        )
        try:
            for _ in range(2400):
                done = len(path.read_bytes().splitlines()) - 1 if path.exists() else 0
                if done >= 2 or process.poll() is not None:
                    break
                time.sleep(0.1)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert 2 <= done < 4, (tmp_path / "log").read_text()
    assert [file.name for file in path.parent.iterdir() if not file.name.startswith(".")] == ["r.jsonl"]
    reading = read_results([path])
    assert reading.problems == []
    recorded = [entry.record for entry in reading.entries if isinstance(entry.record, TrialRecord)]
    assert len(recorded) >= 2
    assert all(record.result.status == "complete" and record.planned for record in recorded)
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tmp_path / "kept.yaml", other)
    shutil.copy(path, other)
    ended = warm("run", "kept.yaml", "--wandb", "disabled", "--results", "r.jsonl", cwd=other)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert f"study kept: 4 trials, {4 - len(recorded)} new, {len(recorded)} complete" in ended.stdout
    exported = here("results", "export", "kept", "--out", "again.jsonl", cwd=other)
    assert exported.stdout == "again.jsonl: 4 results\n"
    assert (other / "again.jsonl").read_bytes() == (other / "r.jsonl").read_bytes()


def test_a_results_file_that_would_lose_results_is_refused(
    halves: tuple[Path, Path], warm: Rankopt, tmp_path: Path
) -> None:
    """`run --results` reads the file before it replaces it; nothing is trained and the file stays as it is."""
    shutil.copy(halves[0] / "half.yaml", tmp_path)
    text = (halves[0] / "results.jsonl").read_text() + "{\n"
    (tmp_path / "r.jsonl").write_text(text)
    done = warm("run", "half.yaml", "--wandb", "disabled", "--results", "r.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()[-2:]
    assert first.startswith("rankopt: r.jsonl:3: must be a JSON object")
    assert second == "rankopt: --results would replace r.jsonl: correct it, or name another file"
    assert (tmp_path / "r.jsonl").read_text() == text


def test_other_forms(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    """Rows for bencheval, runs for PEFT's comparison, and rows for `rankopt blackbox`, from a results file alone."""
    assert here("results", "export", "tiny", "--out", tmp_path / "r.jsonl", cwd=finished[0]).returncode == 0
    done = here("results", "export", "--from", "r.jsonl", "--format", "bencheval", "--out", "b.csv", cwd=tmp_path)
    assert done.stdout == "b.csv: 4 rows, 0 combinations of method, task and seed missing\n"
    header = (tmp_path / "b.csv").read_text().splitlines()[0]
    assert header == "method,task,seed,metric_error,metric,time_train_s,time_infer_s,parameters"
    done = here("results", "export", "--from", "r.jsonl", "--format", "peft", "--out", "runs", cwd=tmp_path)
    assert done.stdout == "runs: 4 runs\n"
    assert len(list((tmp_path / "runs").glob("*.json"))) == 4
    done = here("results", "export", "--from", "r.jsonl", "--format", "rows", "--out", "t.jsonl", cwd=tmp_path)
    assert done.returncode == 0
    assert here("blackbox", "t.jsonl", "--trials", 2, "--replays", 1, cwd=tmp_path).returncode == 0
    done = here("results", "export", "--from", "r.jsonl", "--out", "same.jsonl", cwd=tmp_path)
    assert (tmp_path / "same.jsonl").read_bytes() == (tmp_path / "r.jsonl").read_bytes()
    done = here("results", "export", "--out", "x.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2, "rankopt: results export needs a STUDY, or results files: --from results.jsonl\n"
    )  # fmt: skip


def test_one_table_of_several_studies(
    finished: tuple[Path, Any], halves: tuple[Path, Path], here: Rankopt, tmp_path: Path
) -> None:
    """Rows need no study; a results file holds one."""
    assert here("results", "export", "tiny", "--out", tmp_path / "r.jsonl", cwd=finished[0]).returncode == 0
    files = ("--from", tmp_path / "r.jsonl", "--from", halves[0] / "results.jsonl")
    done = here("results", "export", *files, "--format", "rows", "--out", "t.jsonl.gz", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "t.jsonl.gz: 7 rows\n"), done.stderr
    assert here("blackbox", "t.jsonl.gz", "--trials", 2, "--replays", 1, cwd=tmp_path).returncode == 0
    done = here("results", "export", *files, "--out", "both.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert "the results files hold the studies half, tiny; give the name of one" in done.stderr


def test_predictions_in_the_file(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    """They are the bytes of the stored artifact, and are stored again by an import."""
    import numpy as np

    done = here("results", "export", "tiny", "--predictions", "--out", tmp_path / "r.jsonl", cwd=finished[0])
    assert done.stdout.endswith(": 4 results\n")
    record = next(e.record for e in read_results([tmp_path / "r.jsonl"]).entries if isinstance(e.record, TrialRecord))
    assert record.predictions is not None
    (tmp_path / "p.npz").write_bytes(record.predictions.data)
    assert "labels/search" in np.load(tmp_path / "p.npz")
    assert here("results", "import", "r.jsonl", cwd=tmp_path).returncode == 0
    done = here("results", "export", "tiny", "--predictions", "--out", "again.jsonl", cwd=tmp_path)
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "r.jsonl").read_bytes()


def test_a_search_travels(searched: Path, here: Rankopt, fresh: Callable[..., Any], tmp_path: Path) -> None:
    """Its proposals are in the report of the file, and a new storage shows what the old one shows."""
    assert here("results", "export", "look", "--out", tmp_path / "r.jsonl", cwd=searched).returncode == 0
    done = fresh("report", "--from", "r.jsonl", "--out", "page", cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert not done.imported & {"optuna", "torch"}
    assert "10 proposals: 10 complete." in (tmp_path / "page" / "report.md").read_text()
    done = here("results", "import", "r.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("best", "importance"):
        old, new = (here(command, "look", "--json", cwd=folder).stdout for folder in (searched, tmp_path))
        assert old == new
    assert "10 complete, 0 pruned" in here("show", "look", cwd=tmp_path).stdout
    other = tmp_path / "other"  # a study file whose data lies elsewhere names the same search
    other.mkdir()
    shutil.copy(searched / "look.yaml", other)
    done = here("results", "import", tmp_path / "r.jsonl", "--into", "look.yaml", cwd=other)
    assert (done.returncode, done.stderr) == (0, "")
    assert "results added, 0 there already" in done.stdout


def test_import_into_a_name_in_a_storage(halves: tuple[Path, Path], here: Rankopt, tmp_path: Path) -> None:
    """The name of a study in the storage is enough; one that it lacks is an error."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    first, second = (folder / "results.jsonl" for folder in halves)
    assert here("results", "import", first, "--storage", url, cwd=tmp_path).returncode == 0
    done = here("results", "import", second, "--into", "half", "--storage", url, cwd=tmp_path)
    assert done.stdout == "study half: 1 result added, 0 there already, 2 in all\n"
    done = here("results", "import", second, "--into", "none", "--storage", url, cwd=tmp_path)
    assert done.returncode == 2
    assert "(it has: half)" in done.stderr


def test_no_path_of_the_machine(finished: tuple[Path, Any], here: Rankopt, tmp_path: Path) -> None:
    assert here("results", "export", "tiny", "--out", tmp_path / "r.jsonl", cwd=finished[0]).returncode == 0
    text = (tmp_path / "r.jsonl").read_text()
    assert '"data_dir"' in text
    assert str(tmp_path.parent) not in text
    assert "/tmp/" not in text
